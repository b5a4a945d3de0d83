"""How a rank's process ends or is copied, and what of its session remains; and its clock."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import otel_train
from otel_train.catalogue import cluster_name
from otel_train.ring import LOCK_NAME, Kind, RingReader, is_served, ring_files
from otel_train.step import recording, session_end
from otel_train.testing import OtlpReceiver
from tests.support.ports import free_port
from tests.support.waiting import wait_until

BEGIN = """
import multiprocessing, os, sys
import otel_train
telemetry = otel_train.init(ring_dir=sys.argv[1], close_timeout=0.01)
for step in (1, 2, 3):
    telemetry.step(step, {"loss": 2.0})
"""


def run(code: str, directory: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], RingReader]:
    """Run three steps and then this code in a process of its own, and return how it ended, and its ring."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, str(directory)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, RingReader(ring_files(directory)[0])


@pytest.mark.faults
@pytest.mark.parametrize(
    ("end", "code", "closed"), [("os._exit(3)", 3, False), ("raise OSError", 1, True)], ids=["os._exit", "exception"]
)
def test_any_end_keeps_steps(end: str, code: int, closed: bool, tmp_path: Path) -> None:
    """However a process ends, its steps are recorded, also when no code of ours runs at the end."""
    done, reader = run(end, tmp_path, OTEL_TRAIN_SIDECAR="external")
    assert done.returncode == code, done.stderr
    assert [record.step for record in reader.read(0, 100)[0] if record.kind is Kind.RANK] == [1, 2, 3]
    assert (reader.progress.closed, reader.writer_lives) == (closed, False)


@pytest.mark.faults
def test_forked_children_end_cleanly(tmp_path: Path) -> None:
    """Children by os.fork and multiprocessing record nothing, leave the ring open and do not hang; no step comes
    twice.
    """
    forks = """
        child = os.fork()
        if not child:
            telemetry.step(4)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        child = multiprocessing.get_context("fork").Process(target=lambda: telemetry.step(4))
        child.start()
        child.join()
        assert child.exitcode == 0
        print(telemetry.latest[0])
        os._exit(0)
    """
    with OtlpReceiver() as receiver:
        done, reader = run(dedent(forks), tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}")
        assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
        assert (reader.progress.step, reader.progress.closed) == (3, False)
        assert "Traceback" not in done.stderr
        wait_until(lambda: bool(receiver.points), 60, "a sidecar that has begun")
        with (tmp_path / LOCK_NAME).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the sidecar leaves it when it has sent everything
    assert len(receiver.values("loss")) == 2  # the first and the last of the rank itself
    assert receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0]


@pytest.mark.faults
def test_killed_rank_is_delivered(tmp_path: Path) -> None:
    """A rank that is killed with its direct children, as Ray does, is delivered to a receiver that comes later."""
    address = f"127.0.0.1:{free_port()}"
    rank = subprocess.Popen(
        [sys.executable, "-c", BEGIN + "telemetry.close(); print('done', flush=True); sys.stdin.read()", str(tmp_path)],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert rank.stdout is not None
    assert rank.stdout.readline() == "done\n"
    wait_until(lambda: is_served(tmp_path))
    for task in Path(f"/proc/{rank.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    rank.kill()
    rank.wait()
    with OtlpReceiver(address) as receiver:
        wait_until(lambda: receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0], 60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return clocks that stand still: seconds of the wall clock and of the steady ones."""
    clock = {"wall": 1e9, "steady": 0.0}
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    monkeypatch.setattr(time, "time_ns", lambda: int(clock["wall"] * 1e9))
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: clock["steady"])
    monkeypatch.setattr(recording, "core", None)  # it has a clock that no test can set
    return clock


@pytest.mark.parametrize(
    ("jump", "stamps"), [(-3.0, [2.0, 4.0, 5.0, 6.0, 7.0, 9.0]), (100.0, [2.0, 4.0, 106.0, 108.0, 110.0, 112.0])]
)
def test_stamps_survive_clock_changes(
    jump: float, stamps: list[float], clock: dict[str, float], tmp_path: Path
) -> None:
    """After a clock was set back, stamps advance at half the pace until it has caught up; one that is set forward is
    followed.
    """
    telemetry = otel_train.init(ring_dir=tmp_path, close_timeout=0.0)
    for step in range(1, 7):
        clock["steady"] += 2.0
        clock["wall"] += 2.0 + (jump if step == 3 else 0.0)
        telemetry.step(step)
    telemetry.close()
    records = RingReader(ring_files(tmp_path)[0]).read(0, 100)[0]
    assert [record.time_ns / 1e9 - 1e9 for record in records if record.kind is Kind.RANK] == stamps


def test_close_bounds_total_wait(clock: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A close waits for reductions and sidecar together no longer than its timeout."""
    given: list[float] = []

    def reductions(*_: object) -> list[Any]:
        clock["steady"] += 1.5
        return []

    telemetry = otel_train.init(ring_dir=tmp_path, close_timeout=2.0)
    telemetry.step(1)
    assert telemetry._running is not None
    monkeypatch.setattr(telemetry._running.reducer, "close", reductions)
    monkeypatch.setattr(session_end, "wait_until", lambda _, timeout: given.append(timeout))
    telemetry.close()
    assert given == [0.5]


@pytest.mark.usefixtures("clock")
def test_failing_reductions_keep_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose last reductions fail has its end in the ring all the same."""

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    telemetry = otel_train.init(ring_dir=tmp_path, close_timeout=0.0)
    telemetry.step(1)
    assert telemetry._running is not None
    monkeypatch.setattr(telemetry._running.reducer, "close", fail)
    telemetry.close()
    assert RingReader(ring_files(tmp_path)[0]).progress.closed
