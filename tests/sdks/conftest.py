"""Bridges, and programs of other languages that send to them, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.sdk_senders import BoundedBridge, Sender


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Callable[..., BoundedBridge]]:
    """Start a bridge on this test's state directory."""
    with ExitStack() as stack:

        def start(*options: str, **more: str) -> BoundedBridge:
            running = BoundedBridge(tmp_path, *options, **more)
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture
def sender() -> Iterator[Callable[..., Sender]]:
    """Start a language's program that sends to a bridge."""
    with ExitStack() as stack:

        def start(
            language: str,
            bridge: BoundedBridge,
            *,
            protocol: str = "grpc",
            compression: str = "gzip",
            **variables: str,
        ) -> Sender:
            address = bridge.address if protocol == "grpc" else bridge.http_address
            standard = {
                "ENDPOINT": f"http://{address}",
                "PROTOCOL": protocol,
                "COMPRESSION": compression,
                "TIMEOUT": "120000",
            }
            named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in standard.items()}
            running = Sender(language, **named, **variables)
            stack.callback(running.stop)
            return running

        yield start
