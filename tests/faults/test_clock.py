"""The wall clock jumps: steps arrive once, in order, each at a time of its own."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.diagnose.examine import examine
from otel_train.read.load import load
from otel_train.ring import RingReader, ring_files
from otel_train.testing import OtlpReceiver
from tests.support.fault_job import assert_each_once, running_job
from tests.support.pipeline import running_pipeline
from tests.support.step_times import compare
from tests.support.torchrun import run_torchrun, script
from tests.support.wall_clock import Clock

pytestmark = pytest.mark.faults
JUMPS = (3600, 0, -3600, 0)
"""By how many seconds the clock is wrong, one after the other."""
AN_HOUR = r"(3598|3599|3600|3601)\.\d s"
"""An offset of an hour as it is told: ranks that are held up when they read their clocks see a little more or less."""


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


def test_wrong_clock_is_named(tmp_path: Path) -> None:
    """Of two machines' ranks the one whose clock is an hour ahead is named with offset and host; nothing is lost."""
    clock = Clock(tmp_path)
    clock.set(3600)

    def train(folder: str, clock: dict[str, str]) -> None:
        import logging
        import os
        import sys

        rank = os.environ["RANK"]
        if rank == "1" and "FAULTS_CLOCK" not in os.environ:
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **clock})
        import torch.distributed as dist

        import otel_train

        logging.basicConfig(filename=f"{folder}/rank{rank}.log")
        os.environ["OTEL_RESOURCE_ATTRIBUTES"] = f"host.name=node-{rank}"
        del os.environ["OTEL_TRAIN_SIDECAR"]
        dist.init_process_group("gloo")
        with otel_train.init(ring_dir=f"{folder}/rings{rank}", rank_interval=0.0, close_timeout=60) as telemetry:
            for step in range(1, 21):
                telemetry.step(step, {"loss": float(step)})
            assert telemetry.flush(60)
        dist.destroy_process_group()

    with OtlpReceiver() as receiver:
        program = script(tmp_path, train, str(tmp_path), clock.environment)
        run_torchrun(2, program, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}")
        points = receiver.points
    compared = rf"node-1 \(rank 1\) is {AN_HOUR} ahead, against that of rank 0 on node-0"
    assert re.search(compared, (tmp_path / "rank0.log").read_text())
    assert re.search(rf"the clock of node-1 \(rank 1\) is {AN_HOUR}", (tmp_path / "rings1" / "sidecar.log").read_text())
    assert [point.value for point in points if point.name == cluster_name("loss")] == list(range(1, 21))
    now = time.time_ns()
    for rank in (0, 1):
        mine = [point for point in points if point.instance.removesuffix("/sidecar").endswith(f"/{rank}")]
        own = {point.time_ns: point.value for point in mine if point.name == "loss"}
        assert list(own.values()) == list(range(1, 21)), rank
        assert [round((when - now) / 3.6e12) for when in own] == [rank] * 20, "a record's time is corrected"
        told = [point for point in mine if point.name == rows.CLOCK_OFFSET.name]
        assert {round(point.value / 100) for point in told} == {36 * rank}
        assert all(abs(point.time_ns - now) < 3e11 for point in told)
        findings = [finding.summary for finding in examine(load(str(tmp_path / f"rings{rank}")).history)]
        about_clocks = [re.sub(AN_HOUR, "an hour", text) for text in findings if "clock" in text]
        assert about_clocks == ["the clock of rank 1 on node-1 is an hour ahead"] * rank
    assert RingReader(ring_files(tmp_path / "rings0")[0]).cursor.refused == 0
