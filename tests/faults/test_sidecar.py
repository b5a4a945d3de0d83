"""The sidecar is killed, gets no room for its log, and is stopped until the ring wraps, all in one job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel_train.bridge import HistoryRow
from otel_train.catalogue import rows
from otel_train.ring import Kind
from tests.support.fault_job import Job, Window, assert_each_once, of_steps, running_job
from tests.support.mounts import SmallDisk, small_disk
from tests.support.pipeline import Pipeline
from tests.support.step_times import compare
from tests.support.waiting import wait_until

pytestmark = pytest.mark.faults
RECORDS = 512
"""Of a ring. At 20 steps a second rank 0, which writes the cluster's records too, goes around in 12 s, in which a
sidecar that was killed three times has to run again: it is left alone for 4 s after the third."""
KILLS = 3


@dataclass
class Suffered:
    """The job whose sidecar had the faults, and its outcome."""

    job: Job
    windows: dict[str, Window] = field(default_factory=dict)
    first_lost: list[int] = field(default_factory=list)
    """Where each rank's ring was read to when the sidecar was stopped."""
    passed: dict[int, int] = field(default_factory=dict)
    """Step of each of the cluster's records that was written meanwhile, by its number in rank 0's ring."""
    dropped: list[int] = field(default_factory=list)
    """Count of dropped records in the cursor of each rank's ring."""
    steps: int = 0
    history: list[HistoryRow] = field(default_factory=list)

    @property
    def overwritten(self) -> set[int]:
        """Return the steps of the cluster's records that are no longer there."""
        lost = range(self.first_lost[0], self.first_lost[0] + self.dropped[0])
        return {step for number, step in self.passed.items() if number in lost}


@pytest.fixture(scope="module")
def suffered(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suffered]:
    """Run the job through the three, one after the other."""
    home = tmp_path_factory.mktemp("sidecar")
    with (
        small_disk(home / "rings", "16m") as disk,
        running_job(
            home / "sidecar",
            pipeline.target,
            rings=disk.folder,
            environment={"OTEL_TRAIN_RING_RECORDS": str(RECORDS)},
        ) as job,
    ):
        result = Suffered(job)
        job.reach(60)
        for name, fault in {"killed": kill_often, "full": fill, "stopped": stop_until_it_wraps}.items():
            begin = time.monotonic_ns()
            fault(result, disk)
            result.windows[name] = begin, time.monotonic_ns()
            job.catch_up()
            job.go_on(40)
        result.steps = job.stop()
        job.await_sidecars_end()
        cursors = [job.ring(rank).cursor for rank in job.ranks]
        assert [cursor.position for cursor in cursors] == [job.ring(rank).progress.written for rank in job.ranks]
        result.dropped = [cursor.dropped for cursor in cursors]
        result.history = pipeline.rows(job.run_id, result.steps - len(result.overwritten))
        yield result


def kill_often(suffered: Suffered, _: SmallDisk) -> None:
    for _kill in range(KILLS):
        suffered.job.kill_sidecar()
        suffered.job.catch_up()


def fill(suffered: Suffered, disk: SmallDisk) -> None:
    disk.fill()
    suffered.job.go_on(60)
    disk.clear()


def stop_until_it_wraps(suffered: Suffered, _: SmallDisk) -> None:
    job = suffered.job
    sidecar, ring = job.sidecar(), job.ring()
    stop_between_requests(job, sidecar)
    suffered.first_lost = [job.ring(rank).cursor.position for rank in job.ranks]
    position = suffered.first_lost[0]

    def follow() -> bool:
        nonlocal position
        records, position, _ = ring.read(position, RECORDS)
        suffered.passed |= {record.sequence: record.step for record in records if record.kind is Kind.CLUSTER}
        # Rank 1 has no records of the cluster: its ring takes twice as long.
        return job.ring(1).progress.written > suffered.first_lost[1] + RECORDS + 40

    wait_until(follow, 120, "the rings' wrapping", log=job.log)
    os.kill(sidecar, signal.SIGCONT)
    # Until the first look after it more is overwritten.
    wait_until(lambda: follow() and ring.cursor.dropped > 0, 60, "a look at the ring")


def stop_between_requests(job: Job, sidecar: int) -> None:
    """Stop it when everything is acknowledged: what is under way then would arrive and count as lost too."""

    def stopped() -> bool:
        os.kill(sidecar, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{sidecar}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        readers = [job.ring(rank) for rank in job.ranks]
        if all(reader.cursor.position == reader.progress.written for reader in readers):
            return True
        os.kill(sidecar, signal.SIGCONT)
        return False

    wait_until(stopped, 60, "a sidecar without a request", pause=0.01)


@pytest.mark.parametrize("fault", ["killed", "full"])
def test_sidecar_fault_loses_nothing(fault: str, suffered: Suffered) -> None:
    """A sidecar that is killed with -9 is started again; a full /dev/shm takes nothing from rings that are there."""
    job, window = suffered.job, suffered.windows[fault]
    compare(f"sidecar: {fault}", job, window, suffered.windows.values())
    steps = job.steps_within(window)
    assert_each_once(of_steps(suffered.history, steps), steps)


def test_overwritten_steps_are_counted(suffered: Suffered, pipeline: Pipeline) -> None:
    """The rings wrap while the sidecar is stopped: the other steps arrive, and the count is sent for each rank."""
    compare("sidecar: stopped", suffered.job, suffered.windows["stopped"], suffered.windows.values())
    assert suffered.overwritten
    steps = [step for step in range(1, suffered.steps + 1) if step not in suffered.overwritten]
    assert [row.values[rows.STEP.wandb_key] for row in suffered.history] == steps
    assert [row.values["train/loss"] for row in suffered.history] == steps
    assert all(count > 0 for count in suffered.dropped)
    for rank, count in enumerate(suffered.dropped):
        assert pipeline.endpoint.values_of(suffered.job.run_id, rank, rows.RECORDS_DROPPED.name)[-1] == count
