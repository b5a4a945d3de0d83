"""The owner of the sidecar's process: it is started again when it is killed, and only then."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import Kind, is_alive, start_time
from otel_train.step import sidecar_process as owner
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
    """End what a test has started."""
    process.close()
    rank.ring.close(0, 0)


def is_gone(pid: int) -> bool:
    return not is_alive(pid, start_time(pid))


def kill(process: SidecarProcess) -> None:
    """Kill the sidecar and wait until another one runs."""
    before = pid_of(process)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: process.pid not in (0, before), what="another sidecar")


def watching() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "otel_train-sidecar"}


def test_a_killed_sidecar_is_started_again_and_goes_on_where_it_was(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is recorded meanwhile arrives once; the restarts are counted, and said once."""
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
    assert [each.getMessage().count("was killed or has failed") for each in caplog.records] == [1]


def test_a_sidecar_that_was_told_to_end_stays_away(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """It says so before it ends."""
    before = watching()
    process = SidecarProcess(tmp_path, 0.0)
    rank.record(1)
    rank.ring.close(1, 0)
    wait_until(lambda: receiver.values(PICKS) == [1])
    pid = pid_of(process)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: watching() <= before and is_gone(pid))
    assert process.pid == pid


def test_a_closed_session_starts_no_sidecar(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Also when its sidecar is killed; and closing waits for nothing."""
    before = watching()
    process = SidecarProcess(tmp_path, 0.0)
    first = pid_of(process)
    rank.record(1)
    wait_until(lambda: receiver.values(PICKS) == [1])
    process.close()
    os.kill(first, signal.SIGKILL)
    assert watching() <= before
    assert process.pid == first


def test_the_end_of_a_session_does_not_wait_for_the_pause(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last records of a session whose sidecar was killed a moment ago are sent."""
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


def test_a_ring_that_is_cut_short_costs_its_own_records_only(
    rank: Rank, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    """The kernel ends the sidecar (SIGBUS); the next one refuses the file and sends the other rings'."""
    other = Rank(tmp_path, rank=1)
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        for each in (rank, other):
            each.record(1)
        for each in (rank, other):
            wait_until(each.acknowledged)
        os.truncate(other.ring.path, 0)
        rank.record(2)
        wait_until(lambda: receiver.values(PICKS) == [1, 1, 3])
        wait_until(lambda: f"{other.ring.path} is not a ring file" in (tmp_path / owner.LOG_NAME).read_text())
        end(process, rank)


def test_workers_of_a_loader_do_not_take_the_sidecars_end(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """PyTorch hears of every child that ends, and forks while the sidecar is waited for."""
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        batches = iter(torch.utils.data.DataLoader(range(100), num_workers=2, batch_size=1))  # type: ignore[arg-type]
        next(batches)
        kill(process)
        rank.record(1)
        wait_until(lambda: receiver.values(PICKS) == [1])
        assert len(list(batches)) == 99
        end(process, rank)


@pytest.mark.usefixtures("receiver")
def test_a_first_process_of_a_container_has_no_dead_sidecars(rank: Rank, tmp_path: Path) -> None:
    """What has lost its parent becomes its child there, and stays a zombie until it is waited for."""
    adopt = ctypes.CDLL(None).prctl
    adopt(PR_SET_CHILD_SUBREAPER, 1)
    try:
        with closing(SidecarProcess(tmp_path, 0.0)) as process:
            first = pid_of(process)
            kill(process)
            end(process, rank)
        assert not Path(f"/proc/{first}").exists()
    finally:
        adopt(PR_SET_CHILD_SUBREAPER, 0)


def test_a_sidecar_of_another_job_that_sends_elsewhere_is_warned_of(
    rank: Rank,
    receiver: OtlpReceiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two jobs were given one directory: the second one's values go where the first one's do."""
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
