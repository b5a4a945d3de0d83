"""The wall clock jumps: steps arrive once, in order, each at a time of its own."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from tests.support.fault_job import assert_each_once, running_job
from tests.support.pipeline import running_pipeline
from tests.support.step_times import compare
from tests.support.wall_clock import Clock

pytestmark = pytest.mark.faults
JUMPS = (3600, 0, -3600, 0)
"""By how many seconds the clock is wrong, one after the other."""


def test_clock_jumps_lose_nothing(tmp_path: Path) -> None:
    """Steps arrive once and in order, though ranks, sidecar and bridge see it go forward, back, further, and right."""
    clock = Clock(tmp_path)
    with running_pipeline(tmp_path, **clock.environment) as pipeline:
        with running_job(tmp_path / "clock_jumps", pipeline.target, environment=clock.environment) as job:
            job.reach(60)
            begin = time.monotonic_ns()
            for seconds in JUMPS:
                clock.set(seconds)
                job.go_on(60)
            end = time.monotonic_ns()
            job.go_on(60)
            steps = job.stop()
            job.await_sidecars_end()
        compare("clock jumps", job, (begin, end))
        history = pipeline.rows(job.run_id, steps)
    assert_each_once(history, range(1, steps + 1))
    # Prometheus keeps milliseconds, and one point of each.
    times = [round(row.timestamp * 1000) for row in history]
    assert all(before < after for before, after in itertools.pairwise(times))
    assert times[-1] - times[0] > JUMPS[0] * 1000, "the clock did not jump"
