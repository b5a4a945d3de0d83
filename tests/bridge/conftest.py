"""Start bridges, inboxes and wandb servers that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

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
