"""Ranks with another number of batches: DDP's `join()`, over two epochs."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from otel_train.mixing import MixingMeter
from tests.support.on_ranks import Job


@pytest.mark.ranks(2)
def test_steps_have_their_ranks_values(job: Job) -> None:
    """Steps that rank 1 did not make are rank 0's alone, and in the second epoch both are there again.

    The longer rank waits once in each epoch, not at each step nor for a reduction's bound, and says for whom.
    """
    batches, epochs, seconds = (40, 25), 2, []
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    with job.session(sources=[meter], reduction_timeout=10.0, close_timeout=3.0) as telemetry:
        for epoch in range(epochs):
            with model.join():
                for batch in range(1, batches[job.rank] + 1):
                    model(torch.ones(2, 4)).sum().backward()
                    meter.pick(0)
                    step = epoch * max(batches) + batch
                    begin = time.monotonic()
                    telemetry.step(step, {"loss": float(step * 10**job.rank)})
                    seconds.append(time.monotonic() - begin)
                    time.sleep(0.01)
    job.barrier()
    steps = range(1, epochs * max(batches) + 1)
    alone = {step for step in steps if (step - 1) % max(batches) >= min(batches)}
    assert job.cluster("loss") == {step: step * (1.0 if step in alone else 5.5) for step in steps}
    assert list(job.cluster("loss")) == list(steps)
    assert job.cluster("stream_mixing/picks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    assert job.cluster("train/ranks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    if job.rank == 0:
        assert sum(waited > 0.5 for waited in seconds[1:]) <= epochs  # the first step makes the ring
        (warning,) = job.warnings
        assert "rank 1 takes no part in the reduction of step 26" in warning
