"""Ranks with another number of batches: DDP's `join()`, over two epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from otel_train.mixing import MixingMeter
from tests.support.on_ranks import Job

BATCHES, EPOCHS = (40, 25), 2


def new_model() -> DistributedDataParallel:
    """Return the model, the same each time."""
    torch.manual_seed(0)
    return DistributedDataParallel(torch.nn.Linear(4, 1))


def train(model: DistributedDataParallel, rank: int) -> Iterator[int]:
    """Train on other batches on each rank, and yield each step's number before the optimizer's step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        with model.join():
            for batch in range(1, BATCHES[rank] + 1):
                optimizer.zero_grad()
                model(torch.full((2, 4), batch / 40 + rank)).square().mean().backward()
                yield epoch * max(BATCHES) + batch
                optimizer.step()


@pytest.mark.ranks(2)
def test_steps_have_their_ranks_values(job: Job) -> None:
    """Steps that rank 1 did not make are rank 0's alone, and in the second epoch both are there again.

    The longer rank waits once in each epoch, not at each step nor for a reduction's bound, and says for whom.
    """
    seconds: list[float] = []
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    with job.session(sources=[meter], reduction_timeout=10.0, close_timeout=3.0) as telemetry:
        for step in train(new_model(), job.rank):
            meter.pick(0)
            begin = time.monotonic()
            telemetry.step(step, {"loss": float(step * 10**job.rank)})
            seconds.append(time.monotonic() - begin)
            time.sleep(0.01)
    job.barrier()
    steps = range(1, EPOCHS * max(BATCHES) + 1)
    alone = {step for step in steps if (step - 1) % max(BATCHES) >= min(BATCHES)}
    assert job.cluster("loss") == {step: step * (1.0 if step in alone else 5.5) for step in steps}
    assert list(job.cluster("loss")) == list(steps)
    assert job.cluster("stream_mixing/picks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    assert job.cluster("train/ranks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    if job.rank == 0:
        assert sum(waited > 0.5 for waited in seconds[1:]) <= EPOCHS  # the first step makes the ring
        (warning,) = job.warnings
        assert "rank 1 takes no part in the reduction of step 26" in warning


@pytest.mark.ranks(2)
def test_join_trains_as_without(job: Job) -> None:
    """The gradients that DDP reduces in the job's own group are those of a job without telemetry, to the last bit."""
    measured, plain = new_model(), new_model()
    with job.session(max_in_flight=1) as telemetry:
        for step in train(measured, job.rank):
            telemetry.step(step, {"loss": step})
    list(train(plain, job.rank))
    assert all(map(torch.equal, measured.parameters(), plain.parameters()))


@pytest.mark.ranks(2)
@pytest.mark.parametrize("alone", [400, 1200])
def test_long_absence_keeps_steps(job: Job, alone: int) -> None:
    """A rank's steps wait for its peer, by the hundred; where they become too many it says so, and goes on later."""
    with job.session(close_timeout=10.0) as telemetry:
        for step in range(1, 11):
            telemetry.step(step, {"loss": 1.0 + job.rank})
        if job.rank == 0:
            for step in range(11, alone + 1):
                telemetry.step(step, {"loss": 1.0})
        job.barrier()
        for step in range(alone + 1, alone + 101):
            telemetry.step(step, {"loss": 1.0 + job.rank})
            time.sleep(0.001)
    job.barrier()
    rows = job.cluster("train/ranks")
    assert list(rows) == sorted(rows)
    assert {rows[step] for step in rows if 10 < step <= alone} == {1.0}
    assert {rows[step] for step in rows if not 10 < step <= alone} == {2.0}
    assert job.cluster("loss") == {step: {1.0: 1.0, 2.0: 1.5}[ranks] for step, ranks in rows.items()}
    if job.rank == 0:
        assert len(rows) == alone + 100 or alone > 1000
        assert any("longer than the" in warning for warning in job.warnings) == (alone > 1000)
