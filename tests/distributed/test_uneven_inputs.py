"""Ranks with another number of batches: DDP's `join()`, over two epochs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from otel_train.mixing import MixingMeter
from otel_train.ring import Kind
from otel_train.step.watcher import INTERVAL
from tests.support.on_ranks import BOUND, Job
from tests.support.waiting import wait_until

BATCHES, EPOCHS = (40, 25), 2
LONGER, SHORTER = max(BATCHES), min(BATCHES)
FEW_WAITS = LONGER - SHORTER
"""More than a busy machine makes of one wait an epoch, and half as many as there are steps that a rank makes alone."""


def new_model() -> DistributedDataParallel:
    """Return the model, the same each time."""
    torch.manual_seed(0)
    return DistributedDataParallel(torch.nn.Linear(4, 1))


def train(model: DistributedDataParallel, rank: int, batches: tuple[int, ...] = BATCHES) -> Iterator[int]:
    """Train on other batches on each rank, and yield each step's number before the optimizer's step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        with model.join():
            for batch in range(1, batches[rank] + 1):
                optimizer.zero_grad()
                model(torch.full((2, 4), batch / 40 + rank)).square().mean().backward()
                yield epoch * LONGER + batch
                optimizer.step()


@pytest.mark.ranks(2)
@pytest.mark.parametrize("batches", [BATCHES, BATCHES[::-1]], ids=["rank 1 is shorter", "rank 0 is shorter"])
def test_steps_have_their_ranks_values(job: Job, batches: tuple[int, int]) -> None:
    """Steps that one rank did not make are the other's alone, and in the second epoch both are there again.

    The longer rank waits once in each epoch, not at each step nor for a reduction's bound, and says for whom.
    """
    seconds: list[float] = []
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    longer = batches.index(LONGER)
    with job.session(sources=[meter]) as telemetry:
        for step in train(new_model(), job.rank, batches):
            meter.pick(0)
            begin = time.monotonic()
            telemetry.step(step, {"loss": float(step * 10**job.rank)})
            seconds.append(time.monotonic() - begin)
            time.sleep(0.01)
    job.barrier()
    steps = range(1, EPOCHS * LONGER + 1)
    alone = {step for step in steps if (step - 1) % LONGER >= SHORTER}
    assert job.cluster("loss") == {step: step * (float(10**longer) if step in alone else 5.5) for step in steps}
    assert list(job.cluster("loss")) == list(steps)
    assert job.cluster("stream_mixing/picks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    assert job.cluster("train/ranks") == {step: 1.0 if step in alone else 2.0 for step in steps}
    if job.rank == longer:
        assert sum(waited > 0.5 for waited in seconds) < FEW_WAITS
        (warning,) = [text for text in job.warnings if "no part in the reduction" in text]
        assert f"rank {1 - longer} takes no part in the reduction of step 26" in warning


@pytest.mark.ranks(2)
def test_shorter_ranks_rest_is_told(job: Job) -> None:
    """Its steps after its last log step come with the next epoch's; those of the last one are counted and logged."""
    batches = BATCHES[::-1]
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    with job.session(sources=[meter], log_every=7) as telemetry:
        for step in train(new_model(), job.rank, batches):
            meter.pick(0)
            telemetry.step(step, {"loss": 1.0})
    job.barrier()
    picks = {7: 14.0, 14: 14.0, 21: 14.0, 28: 7.0, 35: 7.0, 42: 13.0, 49: 14.0, 56: 14.0, 63: 14.0, 70: 7.0, 77: 7.0}
    assert job.cluster("stream_mixing/picks") == picks | {80: 3.0}  # without rank 0's steps 64 and 65
    assert [job.ring(rank).progress.abandoned for rank in range(2)] == [1, 0]
    told = [text for text in job.warnings if "not in the cluster's values" in text]
    assert ["up to step 65, is" in text for text in told] == [True] * (job.rank == 0)


@pytest.mark.ranks(2)
def test_one_log_step_an_epoch(job: Job) -> None:
    """A rank that comes to one log step only in each epoch, from the first one on, loses none of the other's."""
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    with job.session(sources=[meter], log_every=20) as telemetry:
        for step in train(new_model(), job.rank):
            meter.pick(0)
            telemetry.step(step, {"loss": float(step)})
    job.barrier()
    assert job.cluster("train/ranks") == {20: 2.0, 40: 1.0, 60: 2.0, 80: 1.0}
    assert job.cluster("stream_mixing/picks") == {20: 40.0, 40: 20.0, 60: 45.0, 80: 20.0}
    assert [text for text in job.warnings if "not at the same step" in text] == []


@pytest.mark.ranks(2)
def test_blocking_rank_waits_once(job: Job) -> None:
    """The longer rank of a blocking session waits once an epoch, and has no values of the steps that it makes alone."""
    waited: dict[int, float] = {}
    values: dict[int, Any] = {}
    with job.session(blocking=True, reduction_timeout=1.0) as telemetry:
        for step in train(new_model(), job.rank):
            begin = time.monotonic()
            values[step] = telemetry.step(step, {"loss": 1.0})
            waited[step] = time.monotonic() - begin
    job.barrier()
    alone = [step for step in range(1, EPOCHS * LONGER + 1) if (step - 1) % LONGER >= SHORTER]
    assert {job.cluster("train/ranks")[step] for step in alone} == {1.0}
    if job.rank == 0:
        assert [values[step] for step in alone] == [None] * len(alone)
        assert sum(waited[step] > 0.5 for step in alone) < FEW_WAITS


@pytest.mark.ranks(2)
def test_rows_after_a_close_have_own_times(job: Job) -> None:
    """What others make and log after rank 0 has closed has rising times; rank 0's last values stay its own."""
    with job.session() as telemetry:
        telemetry.step(1, {"loss": 1.0})
        for step in range(2, 32) if job.rank else ():
            telemetry.step(step, {"loss": 1.0})
            if step % 3 == 0:
                telemetry.log({"eval": float(step)})
            time.sleep(0.002)
    job.barrier()
    if job.rank == 0:
        records = [record for record in job.ring().read(0, 1000)[0] if record.kind is Kind.CLUSTER]
        times = [record.time_ns for record in records]
        assert times == sorted(set(times))
        steps = [record.step for record in records if not record.logged]
        assert steps == list(range(1, 32))
        assert telemetry.latest is not None
        assert telemetry.latest[0] == steps[-1]


@pytest.mark.ranks(2)
def test_wait_for_absent_gives_no_advice(job: Job) -> None:
    """A wait for a rank that was away tells nobody that steps are too short."""
    with job.session(max_in_flight=2) as telemetry:
        for step in (1, 2):
            telemetry.step(step, {"loss": 1.0})
        telemetry.flush(BOUND)
        if job.rank == 0:
            for step in (3, 4):
                telemetry.step(step, {"loss": 1.0})
        job.barrier()
        time.sleep(0.2 * job.rank)  # the other one finds no room meanwhile
        telemetry.step(5, {"loss": 1.0})
    job.barrier()
    assert [warning for warning in job.warnings if "log_every" in warning] == []
    assert job.cluster("train/ranks") == {1: 2.0, 2: 2.0, 3: 1.0, 4: 1.0, 5: 2.0}


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
    with job.session() as telemetry:
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
    # Where too many steps wait, the ranks may not meet again before their last step: then those are one rank's alone.
    assert {rows[step] for step in rows if not 10 < step <= alone} <= ({2.0} if alone <= 1000 else {1.0, 2.0})
    means = {(True, 1.0): (1.0,), (True, 2.0): (1.5,), (False, 1.0): (1.0, 2.0), (False, 2.0): (1.5,)}
    losses = job.cluster("loss")
    assert losses.keys() == rows.keys()
    assert all(losses[step] in means[step <= alone, ranks] for step, ranks in rows.items())
    if job.rank == 0:
        assert len(rows) == alone + 100 or alone > 1000
        assert any("longer than the" in warning for warning in job.warnings) == (alone > 1000)


@pytest.mark.ranks(2)
def test_closed_rank_keeps_pace(job: Job) -> None:
    """A rank that has closed looks often for what the others launch while they do, so that they don't wait for it."""
    closed, seen = job.folder / "closed", job.folder / "seen"
    with job.session(close_timeout=0.2) as telemetry:
        telemetry.step(1, {"loss": 1.0})
        if job.rank == 0:
            telemetry.close()
            assert telemetry._running is not None
            watcher = telemetry._running.cluster._watcher
            closed.touch()
            try:
                wait_until(lambda: watcher.interval < INTERVAL, BOUND, "a short pause", pause=0.0002)
            finally:
                seen.touch()
        else:
            wait_until(closed.exists, BOUND, "the close of rank 0")
            for step in itertools.takewhile(lambda _: not seen.exists(), itertools.count(2)):
                telemetry.step(step, {"loss": 1.0})
