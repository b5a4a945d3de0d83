"""What ranks log beside the steps reaches the cluster's rows whole, for whichever steps and whenever it comes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.support.on_ranks import BOUND, Job
from tests.support.waiting import wait_until


def logged_rows(directory: Path) -> list[tuple[int, dict[str, float]]]:
    """Return what was logged beside the steps, over the cluster: step and values of each record."""
    reader = RingReader(ring_files(directory)[0])
    records = [record for record in reader.read(0, sys.maxsize)[0] if record.logged and record.kind is Kind.CLUSTER]
    return [(record.step, record.layout.by_key(*record.layout.split(record.values))) for record in records]


@pytest.mark.ranks(2)
def test_last_logged_steps_all_arrive(job: Job) -> None:
    """Values that are logged for many steps right before the end have a row each, with the mean over the ranks."""
    with job.session() as telemetry:
        for step in range(1, 4):
            telemetry.step(step, {"loss": 1.0})
        for step in range(1, 31):
            telemetry.log({"eval/loss": step + job.rank, "eval/other": 1.0}, step=step)
    job.barrier()
    expected = {step: {"eval/loss": step + 0.5, "eval/other": 1.0} for step in range(1, 31)}
    assert dict(logged_rows(job.folder / "rings")) == expected
    assert len(logged_rows(job.folder / "rings")) == len(expected)
    assert job.warnings == []


@pytest.mark.ranks(2)
@pytest.mark.parametrize("late", [False, True])
def test_different_logged_steps_all_arrive(job: Job, late: bool) -> None:
    """Ranks that log one key for different steps at the same time, more of them than reductions, each have a row.

    So too where one of them is away until the other one closes, which has stopped to wait for its reductions by then.
    """
    made = job.folder / "made"
    with job.session(log_every=4) as telemetry:
        for step in range(1, 41):
            if late and job.rank == 1 and step == 5:
                wait_until(made.exists, BOUND, "the steps of rank 0")
                time.sleep(0.3)
            telemetry.step(step, {"loss": 1.0})
            telemetry.log({"eval/loss": float(step)}, step=100 * job.rank + step)
            time.sleep(0.002)
        if job.rank == 0:
            made.touch()
    job.barrier()
    rows = logged_rows(job.folder / "rings")
    assert sorted(step for step, _ in rows) == [*range(1, 41), *range(101, 141)]
    assert all(values["eval/loss"] == step % 100 for step, values in rows)


@pytest.mark.ranks(2)
def test_last_addition_of_one_arrives(job: Job) -> None:
    """What one rank alone adds after its last step, or logs, is in the cluster's last rows."""
    with job.session() as telemetry:
        for step in range(1, 4):
            telemetry.step(step, {"loss": 1.0})
        if job.rank == 1:
            time.sleep(0.05)
            telemetry.add({"final": 7.0})
            telemetry.log({"eval/final": 3.0})
    job.barrier()
    reader = RingReader(ring_files(job.folder / "rings")[0])
    last = [record for record in reader.read(0, sys.maxsize)[0] if record.kind is Kind.CLUSTER and not record.logged]
    assert reader.layout.by_key(*reader.layout.split(last[-1].values)).get("final") == 7.0
    assert (last[-1].step, logged_rows(job.folder / "rings")) == (4, [(3, {"eval/final": 3.0})])


@pytest.mark.ranks(2)
@pytest.mark.parametrize("blocking", [False, True])
def test_late_calls_are_one_row(job: Job, blocking: bool) -> None:
    """Batches of an evaluation that give a step again, on one rank or on both, are one row of each rank and of the
    cluster.
    """
    with job.session(blocking=blocking) as telemetry:
        for step in range(1, 7):
            telemetry.step(step, {"loss": 1.0})
            for batch in range(4 if step == 3 or (step == 6 and job.rank == 0) else 0):
                telemetry.step(step, {"eval/loss": float(batch + job.rank)})
    job.barrier()
    own = [record for record in job.ring(job.rank).read(0, sys.maxsize)[0] if record.kind is Kind.RANK]
    mean = 1.5 + job.rank
    expected = [(3, {"eval/loss": mean}), *([(6, {"eval/loss": mean})] if job.rank == 0 else [])]
    assert [(record.step, record.by_key()) for record in own if record.logged] == expected
    assert logged_rows(job.folder / "rings") == [(3, {"eval/loss": 2.0}), (6, {"eval/loss": 1.5})]
