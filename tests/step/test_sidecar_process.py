"""The owner of the sidecar's process: it is started again when it is killed, and only then."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import Kind, is_alive, is_served, start_time
from otel_train.step import sidecar_process as owner
from otel_train.step.sidecar_launch import launch
from otel_train.step.sidecar_process import SidecarProcess
from otel_train.testing import OtlpReceiver
from tests.support.rank_ring import Rank
from tests.support.waiting import wait_until

PR_SET_CHILD_SUBREAPER = 36
PICKS = cluster_name(rows.PICKS.name)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """Return a receiver that the sidecar sends to, and make no long pauses before it starts again."""
    with OtlpReceiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{made.address}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # a request that is given up comes again
        monkeypatch.setattr(owner, "FIRST_PAUSE", 0.05)
        yield made


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Rank]:
    """Return a rank, whose ring ends with the test: a sidecar that still runs then leaves."""
    made = Rank(tmp_path)
    yield made
    made.ring.close(0, 0)


def pid_of(process: SidecarProcess) -> int:
    wait_until(lambda: process.pid > 0, what="a sidecar's beginning")
    return process.pid


def end(process: SidecarProcess, rank: Rank) -> None:
    """End what a test has started, while its receiver is there."""
    process.close()
    rank.ring.close(0, 0)
    wait_until(lambda: not is_served(rank.ring.path.parent), what="the sidecar's end")


def is_gone(pid: int) -> bool:
    return not is_alive(pid, start_time(pid))


def kill(process: SidecarProcess) -> None:
    """Kill the sidecar and wait until another one runs."""
    before = pid_of(process)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: process.pid not in (0, before), what="another sidecar")


def watching() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "otel_train-sidecar"}


def test_killed_sidecar_restarts(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sidecar that is killed is started again: what is recorded meanwhile arrives once, restarts are counted and
    warned of once.
    """
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        for step in (1, 2, 3):
            rank.record(step)
            wait_until(rank.acknowledged)
            if step < 3:
                kill(process)
        rank.record(4, kind=Kind.RANK)
        wait_until(lambda: receiver.values(rows.SIDECAR_RESTARTS.name)[-1:] == [2])
        wait_until(rank.acknowledged)
        end(process, rank)
    assert receiver.values(PICKS) == [1, 3, 6]
    assert [message.count("was killed or has failed") for message in caplog.messages] == [1]


def test_stopped_sidecar_stays_away(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A sidecar that is told to end says so, and is not started again."""
    before = watching()
    process = SidecarProcess(tmp_path, 0.0)
    rank.record(1)
    rank.ring.close(1, 0)
    wait_until(lambda: receiver.values(PICKS) == [1])
    pid = pid_of(process)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: watching() <= before and is_gone(pid))
    assert process.pid == pid


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_ranks_signals_end_none(
    number: signal.Signals, rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slurm sends to all of a step before a time limit (`--signal`) ends no sidecar, nor one that is starting."""
    started = []

    def launch_signalled(arguments: Sequence[str], log: Path, connection: socket.socket) -> subprocess.Popen[bytes]:
        started.append(launch(arguments, log, connection))
        started[-1].send_signal(number)
        return started[-1]

    monkeypatch.setattr(owner, "launch", launch_signalled)
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        for step in (1, 2, 3):
            os.kill(pid_of(process), number)
            rank.record(step)
            wait_until(rank.acknowledged)
        assert len(started) == 1
        end(process, rank)


def test_closed_session_starts_none(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed session starts no sidecar, also when its own is killed, and closing does not wait for it."""
    monkeypatch.setattr(owner, "LONGEST_JOIN", 30.0)  # a busy machine may be late to tell the thread
    before = watching()
    process = SidecarProcess(tmp_path, 0.0)
    first = pid_of(process)
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])
    process.close()
    os.kill(first, signal.SIGKILL)
    assert watching() <= before
    assert process.pid == first


@pytest.mark.usefixtures("receiver")
def test_starting_sidecar_serves(rank: Rank, tmp_path: Path) -> None:
    """A session that is closed while its sidecar still loads its libraries knows that one runs, until it has ended."""
    process = SidecarProcess(tmp_path, 0.0)
    pid = pid_of(process)
    os.kill(pid, signal.SIGSTOP)  # before it has the lock
    try:
        process.close()
        assert process.serves
    finally:
        os.kill(pid, signal.SIGCONT)
        end(process, rank)
    wait_until(lambda: not process.serves, 60)


def test_close_skips_restart_pause(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ends a moment after its sidecar was killed sends its last records without the pause between
    starts.
    """
    monkeypatch.setattr(owner, "FIRST_PAUSE", 1000.0)
    process = SidecarProcess(tmp_path, 0.0)
    pid = pid_of(process)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))
    rank.record(1)
    rank.ring.close(1, 0)
    process.close()
    wait_until(lambda: receiver.values(PICKS) == [1])
    end(process, rank)


def test_truncated_ring_costs_itself(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A ring that is cut short ends the sidecar with SIGBUS; the next one refuses it and sends the other rings."""
    other = Rank(tmp_path, rank=1)
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        for ring in (rank, other):
            ring.record(1)
        for ring in (rank, other):
            wait_until(ring.acknowledged)
        os.truncate(other.ring.path, 0)
        rank.record(2)
        # One that ended before it had noted what was acknowledged has sent it twice.
        wait_until(lambda: {*receiver.values(PICKS)} == {1, 3})
        wait_until(lambda: f"{other.ring.path} is not a ring file" in (tmp_path / owner.LOG_NAME).read_text())
        end(process, rank)


def test_loader_ignores_sidecars_end(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A loader's workers start and end well beside a sidecar that is waited for."""
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        batches = iter(torch.utils.data.DataLoader(range(100), num_workers=2, batch_size=1))  # type: ignore[arg-type]
        next(batches)
        kill(process)
        rank.record(1)
        wait_until(lambda: receiver.values(PICKS) == [1])
        assert len(list(batches)) == 99
        end(process, rank)


@pytest.mark.usefixtures("receiver")
def test_container_init_reaps_sidecars(rank: Rank, tmp_path: Path) -> None:
    """A rank that is a container's first process leaves no sidecar as a zombie."""
    adopt = ctypes.CDLL(None).prctl
    adopt(PR_SET_CHILD_SUBREAPER, 1)
    try:
        with closing(SidecarProcess(tmp_path, 0.0)) as process:
            first = pid_of(process)
            kill(process)
            end(process, rank)
        wait_until(lambda: not Path(f"/proc/{first}").exists(), what="its end as a zombie")
    finally:
        adopt(PR_SET_CHILD_SUBREAPER, 0)


def test_foreign_sidecar_is_warned_of(
    rank: Rank,
    receiver: OtlpReceiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A second job in one directory is warned that the first one's sidecar sends its values elsewhere."""
    monkeypatch.setattr(owner, "LONGEST_TURN", 0.0)
    with closing(SidecarProcess(tmp_path, 0.0)) as first:
        rank.record(1)
        wait_until(rank.acknowledged)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        with closing(SidecarProcess(tmp_path, 0.0)):
            wait_until(lambda: bool(caplog.records))
        end(first, rank)
    assert f"sends to {receiver.address}" in caplog.text
    assert "not to 127.0.0.1:1" in caplog.text
