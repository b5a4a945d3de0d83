"""Ranks that draw alike, through the reduction and the rings of a real job."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from otel_train.diagnose.examine import examine
from otel_train.mixing import MixingMeter
from otel_train.read.load import load
from tests.support.on_ranks import Job


@pytest.mark.ranks(2)
@pytest.mark.parametrize("alike", [True, False])
def test_equal_seeds_are_noted(job: Job, alike: bool) -> None:
    """Two ranks with one seed are 2 that draw alike at each step; with a seed each they are 1 on average."""
    rng = random.Random(7 if alike else job.rank)
    meter = MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 3})
    meter.open(0, "code")
    meter.open(1, "prose")
    with job.session(sources=[meter], blocking=True) as telemetry:
        for step in range(1, 61):
            for slot in rng.choices((0, 1), (1, 3), k=8):
                meter.pick(slot)
            telemetry.step(step)
    job.barrier()
    values = list(job.cluster("stream_mixing/alike_ranks").values())
    assert len(values) == 60
    assert set(values) == {2.0} if alike else 0.6 < mean(values) < 1.4
    if job.rank == 0:
        history = load(str(job.folder)).history
        assert history.order_groups == (((0, 1),) if alike else ((0,), (1,)))
        notes = [finding.summary for finding in examine(history) if finding.severity == "note"]
        assert notes == (["2 of 2 ranks draw in the same order"] if alike else [])
