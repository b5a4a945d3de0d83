"""Each service of the stack goes away for a while under load: all steps are there afterwards, once, in both sinks."""

from __future__ import annotations

import itertools
import time
import uuid
from pathlib import Path

import pytest

from otel_train.catalogue import Metric, rows
from otel_train.render.promql import cluster_series
from otel_train.smoke.child_process import running_process
from tests.support.compose_stack import ENDPOINT, Stack
from tests.support.environment import clean_environment
from tests.support.torchrun import ROOT, script, torchrun
from tests.support.waiting import wait_until


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_outages_lose_no_step(stack: Stack, tmp_path: Path) -> None:
    """Prometheus stopped for a minute, then the bridge, then the collector killed with -9 and started again."""
    pace, outage = 0.05, 60.0
    steps, run_id = int(220 / pace), f"outages-{uuid.uuid4().hex[:8]}"

    def train(steps: int, pace: float) -> None:
        """Take steps at an even pace; the loss of step n is n, and rank r picks n % 4 + r."""
        import time

        import torch.distributed as dist

        import otel_train

        dist.init_process_group("gloo")
        meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
        meter.open(0, "code")
        begin = time.monotonic()
        with otel_train.init(sources=[meter], close_timeout=30.0) as telemetry:
            for step in range(1, steps + 1):
                meter.pick(0, rows=step % 4 + dist.get_rank())
                telemetry.step(step, {"train/loss": float(step)})
                # Never two steps within one of Prometheus' milliseconds, also when it is late.
                time.sleep(max(pace / 10, begin + step * pace - time.monotonic()))
        dist.destroy_process_group()

    environment = clean_environment(
        PYTHONPATH=str(ROOT),
        OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT,
        OTEL_TRAIN_RUN_ID=run_id,
        OTEL_TRAIN_RING_DIR=str(tmp_path / "rings"),
    )
    of_run, log = f'{{train_run_id="{run_id}"}}', tmp_path / "train.log"
    loss, picked = cluster_series(Metric("train/loss")) + of_run, cluster_series(rows.PICKS) + of_run
    with running_process(torchrun(2, script(tmp_path, train, steps, pace)), log, environment) as job:
        wait_until(lambda: bool(stack.prometheus.samples(loss)), 60, "the first step's arrival", log=log, pause=0.5)
        for service in ("prometheus", "wandb-bridge"):
            container = stack.container(service)
            container.stop()
            time.sleep(outage)
            assert job.poll() is None, log.read_text()
            container.start()
            time.sleep(10)
        collector = stack.container("collector")
        collector.kill("SIGKILL")
        time.sleep(5)
        assert job.poll() is None, log.read_text()
        collector.start()
        assert job.wait(steps * pace) == 0, log.read_text()

    def arrived() -> bool:
        (samples,) = stack.prometheus.samples(loss).values()
        return len(samples) >= steps and len(stack.wandb_rows(run_id, tmp_path)) >= steps

    wait_until(arrived, 120, "the last step's arrival in both", pause=0.5)
    (losses,) = stack.prometheus.samples(loss).values()
    (counts,) = stack.prometheus.samples(picked).values()
    numbers = list(range(1, steps + 1))
    picks = [2 * (step % 4) + 1 for step in numbers]
    assert [value for _, value in losses] == numbers
    assert [value for _, value in counts] == list(itertools.accumulate(picks))
    history = [row.values for row in stack.wandb_rows(run_id, tmp_path)]
    assert [row[rows.STEP.wandb_key] for row in history] == numbers
    assert [row["train/loss"] for row in history] == numbers
    assert [row[rows.PICKS.wandb_key] for row in history] == picks
