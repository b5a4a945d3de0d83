"""The bridge is killed with -9 at random moments under load: wandb's files have every step once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.fault_job import assert_each_once, running_job
from tests.support.pipeline import running_pipeline
from tests.support.step_times import compare

pytestmark = pytest.mark.faults
KILLS = 20


def test_killed_bridge_loses_nothing(tmp_path: Path) -> None:
    """Wandb's files have every step once, whatever the bridge was doing: starting, receiving, making rows, writing."""
    moments = random.Random(20)
    with (
        running_pipeline(tmp_path) as pipeline,
        running_job(tmp_path / "bridge_killed", pipeline.target, "--pace", "0.04") as job,
    ):
        job.reach(100)
        begin = time.monotonic_ns()
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.2, 4.0))
            pipeline.bridge.kill()
            pipeline.bridge.start()
        end = time.monotonic_ns()
        job.go_on(100)
        steps = job.stop()
        job.await_sidecars_end()
        compare(f"bridge killed {KILLS} times", job, (begin, end))
        history = pipeline.rows(job.run_id, steps)
    assert_each_once(history, range(1, steps + 1))
