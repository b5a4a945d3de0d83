"""The programs that the tests drive, and bridges that are stopped at the end of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.sdk_senders import BoundedBridge, Sender, go_sender, js_sender

BUILDERS = {"go": go_sender, "javascript": js_sender}


@pytest.fixture(scope="session")
def command() -> Callable[[str], list[str]]:
    """Give a language's program, built at its first use."""
    built: dict[str, list[str]] = {}

    def command(language: str) -> list[str]:
        if language not in built:
            built[language] = BUILDERS[language]()
        return built[language]

    return command


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
def sender(command: Callable[[str], list[str]]) -> Iterator[Callable[..., Sender]]:
    """Start a language's program that sends to a bridge."""
    with ExitStack() as stack:

        def start(language: str, bridge: BoundedBridge, *, compression: str = "gzip", **variables: str) -> Sender:
            running = Sender(
                command(language),
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{bridge.address}",
                OTEL_EXPORTER_OTLP_COMPRESSION=compression,
                OTEL_EXPORTER_OTLP_TIMEOUT="120000",
                **variables,
            )
            stack.callback(running.stop)
            return running

        yield start
