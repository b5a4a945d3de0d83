"""Jobs that end before their time, and ranks with children: what was recorded arrives once, and nobody hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.ring import Kind
from tests.faults.loader_ranks import ROWS, STEPS
from tests.support.fault_job import assert_each_once, running_job
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.faults
LAST = 30
"""The step in which it goes wrong."""


@pytest.mark.parametrize(("wrong", "rank"), [("raise", 1), ("exit", 0), ("kill", 0), ("kill", 1)])
def test_what_was_recorded_before_a_ranks_end_arrives(
    wrong: str, rank: int, pipeline: Pipeline, tmp_path: Path
) -> None:
    """An exception, os._exit and kill -9 lose nothing of what the ring has: the cluster's steps and the rank's own."""
    arguments = ("--wrong", wrong, "--at", str(LAST), "--on", str(rank))
    with running_job(tmp_path / f"{wrong}{rank}", pipeline.target, *arguments) as job:
        job.end(1)
        job.await_sidecars_end()
        steps = job.recorded()
    # The last reduction or two are under way when the rank ends.
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= LAST - 2
    assert_each_once(pipeline.rows(job.run_id, len(steps)), steps)
    assert pipeline.endpoint.values_of(job.run_id, rank, rows.STEP.name)[-1] == LAST


def test_sigterm_to_the_whole_job_loses_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Pre-emption signals torchrun, ranks and sidecar at once; what is recorded is sent before the last one ends."""
    with running_job(tmp_path / "terminated", pipeline.target) as job:
        job.reach(LAST)
        for pid in (job.process.pid, *(job.ring(rank).header.pid for rank in job.ranks), job.sidecar()):
            os.kill(pid, signal.SIGTERM)
        job.process.wait(60)
        job.await_sidecars_end()
        steps = job.recorded()
        assert [job.ring(rank).cursor.position for rank in job.ranks] == [
            job.ring(rank).progress.written for rank in job.ranks
        ]
    assert len(steps) >= LAST - 2
    assert_each_once(pipeline.rows(job.run_id, len(steps)), steps)


def test_what_children_of_a_rank_do_is_not_counted(pipeline: Pipeline, tmp_path: Path) -> None:
    """Forked children go on as the rank would, others load the package; all end, and values are the rank's alone."""
    arguments = ("--wrong", "fork", "--at", "10", "--on", "0", "--steps", str(LAST))
    with running_job(tmp_path / "forked", pipeline.target, *arguments) as job:
        steps = list(range(1, job.end() + 1))
        job.await_sidecars_end()
        own = [record.step for record in job.ring().read(0, 1000)[0] if record.kind is Kind.RANK]
    assert own == steps
    assert_each_once(pipeline.rows(job.run_id, LAST), steps)


def test_a_loader_whose_worker_is_killed_costs_no_count(pipeline: Pipeline, tmp_path: Path) -> None:
    """The training loop goes on with a new loader; what the dead worker had read ahead is read and counted once."""
    with running_job(tmp_path / "loader", pipeline.target, program="tests.faults.loader_ranks") as job:
        job.end()
        job.await_sidecars_end()
    assert_each_once(pipeline.rows(job.run_id, STEPS), range(1, STEPS + 1), count=lambda *_: ROWS)
