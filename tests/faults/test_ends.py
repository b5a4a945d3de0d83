"""Jobs that end before their time, and ranks with children: what was recorded arrives once, and nobody hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.ring import Kind
from tests.support.fault_job import assert_each_once, running_job
from tests.support.pipeline import Pipeline
from tests.support.torchrun import script
from tests.support.waiting import wait_until

pytestmark = pytest.mark.faults
LAST = 30
"""The step in which it goes wrong."""


@pytest.mark.parametrize(("wrong", "rank"), [("raise", 1), ("exit", 0), ("kill", 0), ("kill", 1)])
def test_ended_ranks_records_arrive(wrong: str, rank: int, pipeline: Pipeline, tmp_path: Path) -> None:
    """An exception, os._exit and kill -9 lose nothing of what the ring has: the cluster's steps and the rank's own."""
    arguments, code = ("--wrong", wrong, "--at", str(LAST), "--on", str(rank)), 1 if wrong == "raise" else 137
    with running_job(tmp_path / f"{wrong}{rank}", pipeline.target, *arguments) as job:
        job.end(1)
        job.await_sidecars_end()
        steps = job.recorded()
    # The last reduction or two are under way when the rank ends.
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= LAST - 2
    assert_each_once(pipeline.rows(job.run_id, len(steps)), steps)
    assert pipeline.endpoint.values_of(job.run_id, rank, rows.STEP.name)[-1] == LAST
    assert pipeline.endpoint.values_of(job.run_id, rank, rows.SESSION_FAILED.name) == [code]
    assert pipeline.exit_code(job.run_id) == code


def test_terminated_job_loses_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Pre-emption signals torchrun, ranks and sidecar at once; what is recorded is sent before the last one ends."""
    with running_job(tmp_path / "terminated", pipeline.target) as job:
        job.reach(LAST)
        # On a busy machine the job may be there before its sidecar has begun.
        wait_until(lambda: job.ring(0).cursor.position > 0, 60, "an acknowledgement", log=job.log)
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


def test_children_of_ranks_count_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Forked children go on as the rank would, others load the package; all end, and values are the rank's alone."""
    arguments = ("--wrong", "fork", "--at", "10", "--on", "0", "--steps", str(LAST))
    with running_job(tmp_path / "forked", pipeline.target, *arguments) as job:
        steps = list(range(1, job.end() + 1))
        job.await_sidecars_end()
        own = [record.step for record in job.ring().read(0, 1000)[0] if record.kind is Kind.RANK]
    assert own == steps
    assert_each_once(pipeline.rows(job.run_id, LAST), steps)


def test_killed_loader_worker_costs_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """The training loop goes on with a new loader; what the dead worker had read ahead is read and counted once."""
    batch, steps = 4, 30

    def train(batch: int, steps: int) -> None:
        """Kill a worker of rank 1's loader; the loss of step n is n, and each rank picks the rows of a batch."""
        import os
        import signal
        import time
        from dataclasses import dataclass
        from typing import Any

        import torch
        import torch.distributed as dist
        from torch.utils.data import DataLoader

        import otel_train

        @dataclass
        class Numbers:
            id: str
            modality: str = "code"

            def __len__(self) -> int:
                return 1000

            def read(self, position: int) -> tuple[dict[str, Any], int]:
                return {"value": torch.tensor(position)}, 1

        dist.init_process_group("gloo")
        streams = [Numbers(f"s{number}") for number in range(8)]
        dataset = otel_train.StreamMixingDataset(
            streams, {"code": 1.0}, readers=2, batch_size=batch, rank=dist.get_rank(), world_size=dist.get_world_size()
        )
        loader = DataLoader(dataset, batch_size=batch, num_workers=1)
        with otel_train.init(sources=[dataset]) as telemetry:
            iterator: Any = iter(loader)
            for step in range(1, steps + 1):
                assert len(next(iterator)["value"]) == batch
                telemetry.step(step, {"train/loss": float(step)})
                if step == 10 and dist.get_rank() == 1:
                    try:
                        os.kill(iterator._workers[0].pid, signal.SIGKILL)
                        time.sleep(60)
                        raise AssertionError("the loader did not notice")
                    except RuntimeError:  # from PyTorch's handler of SIGCHLD
                        iterator = iter(loader)
                dist.barrier()
        dist.destroy_process_group()

    program = [script(tmp_path, train, batch, steps)]
    with running_job(tmp_path / "loader", pipeline.target, program=program) as job:
        job.end()
        job.await_sidecars_end()
    assert_each_once(pipeline.rows(job.run_id, steps), range(1, steps + 1), count=lambda *_: batch)
