"""A sidecar's process: how it ends, and what it does when it is killed in a request."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import Kind
from otel_train.sidecar.points import LIVE_SUFFIX
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, serving_http
from tests.support.otlp_store import without_window
from tests.support.rank_ring import Rank, time_of
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a sidecar's process over the test's directory; its log is beside it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("wb") as log:
            command = [sys.executable, "-m", "otel_train.sidecar", str(tmp_path), *options]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_sidecar_ends_after_its_rank(rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """A process that is started as a rank starts it leaves when the rank has ended and all is sent, with status 0."""
    rank.record(1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        sidecar = start("--parent", str(parent.pid))
        wait_until(lambda: receiver.values(PICKS) == [1])
        assert sidecar.poll() is None
        rank.record(2)
        rank.ring.close(2, 0)
        parent.communicate(b"\n")
        assert sidecar.wait(30) == 0
    assert receiver.values(PICKS) == [1, 3]


def test_records_after_sigterm_are_sent(rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """A sidecar stays after SIGTERM until its ranks have ended; its exit code says that it was told to go."""
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
    """A rank that goes on after SIGTERM does not keep the sidecar: after the grace time there is one more try."""
    receiver.refuse_with = grpc.StatusCode.INTERNAL
    sidecar = start("--grace", "1")
    rank.record(1)
    wait_until(lambda: receiver.refused > 0)
    receiver.refuse_with = None
    sidecar.terminate()
    assert sidecar.wait(60) == 0
    assert receiver.values(PICKS) == [1]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_ranks_signals_change_nothing(number: signal.Signals, rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """What Slurm sends to a whole step before a time limit is for the ranks: a sidecar that people start goes on."""
    sidecar = start()
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])
    sidecar.send_signal(number)
    rank.record(2)
    wait_until(lambda: receiver.values(PICKS) == [1, 3] or sidecar.poll() is not None)
    rank.ring.close(2, 0)
    sidecar.terminate()
    assert sidecar.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_skips_grace(number: signal.Signals, rank: Rank, receiver: OtlpReceiver, start: Start) -> None:
    """A second SIGTERM, or a SIGINT, ends a sidecar at once though ranks go on."""
    sidecar = start("--grace", "1000")
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])
    sidecar.send_signal(number)
    if number == signal.SIGTERM:
        rank.record(2)
        wait_until(lambda: len(receiver.values(PICKS)) == 2)  # it has had the first one: two at once would be one
        sidecar.send_signal(number)
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
    assert "records that are not sent stay in" in (tmp_path / "log").read_text()
    assert rank.reader.cursor.position == 0


def test_kill_during_request_loses_nothing(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was kept and not acknowledged is sent again with the same values, and all that is new arrives."""
    rank, store = Rank(tmp_path, records=512), without_window("nothing")
    answering = threading.Event()

    def respond(body: bytes) -> Response:
        answer = store.send(body)
        answering.wait(20)
        return Response(200 if answer.taken else 409, text=answer.text)

    with serving_http(monkeypatch, respond):
        rank.record(*range(1, 31), kind=Kind.BOTH)
        first = start("--rank-interval", "0")
        wait_until(lambda: len(store.requests) == 1)
        first.kill()
        answering.set()
        rank.record(*range(31, 61), kind=Kind.BOTH)
        rank.ring.close(60, 0)
        second = start("--rank-interval", "0", "--linger", "60")
        wait_until(lambda: rank.reader.cursor.position == 60, 60)
        second.terminate()
        assert second.wait(60) == 0
    assert store.steps() == [time_of(step) for step in range(1, 61)]
    assert rank.reader.cursor.refused == 0
    values: dict[object, set[bytes]] = defaultdict(set)
    for point in (point for sent in store.requests for point in sent):
        if not point.instance.endswith(LIVE_SUFFIX):
            values[point.series, point.time_ns].add(point.point)
    assert {len(sent) for sent in values.values()} == {1}
