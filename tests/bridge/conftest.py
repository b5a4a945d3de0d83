"""Start bridges, inboxes and wandb servers that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from otel_train.bridge import BridgeConfig, Inbox
from tests.support.running_bridge import RunningBridge
from tests.support.wandb_server import FakeWandb


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningBridge]]:
    """Start a bridge on this test's state directory."""
    with ExitStack() as stack:

        def start(**options: Any) -> RunningBridge:
            running = RunningBridge(BridgeConfig(state=tmp_path / "state", listen="127.0.0.1:0", linger=0, **options))
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    """Open an inbox in this test's directory."""
    with Inbox(tmp_path) as inbox:
        yield inbox


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    """Run a wandb server."""
    with FakeWandb() as server:
        yield server


@pytest.fixture
def authority() -> trustme.CA:
    """Make an authority for certificates."""
    return trustme.CA()


@pytest.fixture
def tls_files(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """Return the options of a bridge that serves TLS on the loopback."""
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(chain), append=True)
    return {"tls_key": key, "tls_certificate": chain}
