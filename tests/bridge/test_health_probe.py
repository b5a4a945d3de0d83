"""Health checks of a bridge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_train.bridge import Bridge, BridgeConfig
from otel_train.bridge.health_probe import serving
from tests.support.commands import run_otel_train
from tests.support.ports import free_port


def test_check_reports_missing_bridge(tmp_path: Path) -> None:
    """`--check` without a bridge prints a line, and with one too."""
    address = f"127.0.0.1:{free_port()}"
    answer = run_otel_train("bridge", "--check", "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"no bridge serves at {address}" in answer.stderr
    with Bridge(BridgeConfig(state=tmp_path, listen=address)):
        assert run_otel_train("bridge", "--check", "--listen", address).stdout == f"the bridge at {address} serves\n"


def test_health_check_asks_bridge(start: Callable[..., Any]) -> None:
    """A health check succeeds while the bridge serves, and not afterwards."""
    running = start()
    assert serving(running.address)
    running.bridge.stop()
    assert not serving(running.address, timeout=1)
