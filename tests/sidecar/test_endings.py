"""How a sidecar's process ends: told to, with its ranks or before them, and with an endpoint that never answers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import RingReader
from otel_train.testing import OtlpReceiver
from tests.sidecar.conftest import Rank
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a sidecar's process over the test's directory; its log is beside it."""
    started: list[subprocess.Popen[bytes]] = []

    def starting(*options: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("wb") as log:
            command = [sys.executable, "-m", "otel_train.sidecar", str(tmp_path), *options]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield starting
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """Return a receiver that the environment names."""
    with OtlpReceiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{made.address}")
        yield made


def test_records_after_sigterm_are_sent(rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """A sidecar stays until its ranks have ended, and its exit code says that it was told to go."""
    sidecar = start()
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])
    sidecar.terminate()
    for step in (2, 3):
        rank.record(step)
        wait_until(lambda: len(receiver.values(PICKS)) == step)  # noqa: B023  # it is over when step changes
    assert sidecar.poll() is None
    rank.record(4)
    rank.ring.close(4, 0)
    assert sidecar.wait(30) == 0
    assert receiver.values(PICKS) == [1, 3, 6, 10]


def test_grace_time_ends_sidecar(rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """After the grace time there is one more try."""
    receiver.refuse_with = grpc.StatusCode.INTERNAL
    sidecar = start("--grace", "1")
    rank.record(1)
    wait_until(lambda: receiver.refused > 0)
    sidecar.terminate()
    receiver.refuse_with = None
    assert sidecar.wait(30) == 0
    assert receiver.values(PICKS) == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_skips_grace(number: signal.Signals, rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """A SIGTERM more, or a SIGINT, ends it though ranks go on."""
    sidecar = start("--grace", "1000")
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])

    for _ in range(2 if number == signal.SIGTERM else 1):
        sidecar.send_signal(number)
        time.sleep(0.3)  # two at once would be one
    assert sidecar.wait(60) == 0


@pytest.mark.faults
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_silent_endpoint_does_not_block(
    protocol: str, rank: Rank, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is given up after OTEL_EXPORTER_OTLP_TIMEOUT seconds, and the records stay in the ring."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        sidecar = start()
        rank.record(1)
        wait_until(lambda: "does not acknowledge" in (tmp_path / "log").read_text(), 60)
        sidecar.send_signal(signal.SIGINT)
        assert sidecar.wait(60) == 0
    assert "what is not sent stays in" in (tmp_path / "log").read_text()
    assert RingReader(rank.ring.path).cursor.position == 0
