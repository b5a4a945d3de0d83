"""Each service of the stack goes away for a while under load: all steps are there afterwards, once, in both sinks."""

from __future__ import annotations

import itertools
import sys
import time
import uuid
from pathlib import Path

import pytest

from otel_train.catalogue import Metric, rows
from otel_train.render.promql import cluster_series
from otel_train.smoke.child_process import running_process
from tests.stack.conftest import ENDPOINT, Stack
from tests.stack.paced_ranks import PACE, picks
from tests.support.environment import clean_environment
from tests.support.stack_programs import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
RANKS, OUTAGE = 2, 60.0
STEPS = int(220 / PACE)


def test_every_step_arrives_once_through_outages_of_every_service(stack: Stack, tmp_path: Path) -> None:
    """Prometheus stopped for a minute, then the bridge, then the collector killed with -9 and started again."""
    run_id = f"outages-{uuid.uuid4().hex[:8]}"
    environment = clean_environment(
        PYTHONPATH=str(ROOT),
        OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT,
        OTEL_TRAIN_RUN_ID=run_id,
        OTEL_TRAIN_RING_DIR=str(tmp_path / "rings"),
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    command += ["-m", "tests.stack.paced_ranks", str(STEPS)]
    loss, picked = cluster_series(Metric("train/loss")), cluster_series(rows.PICKS)
    of_run = f'{{train_run_id="{run_id}"}}'
    with running_process(command, tmp_path / "train.log", environment) as job:
        wait_until(
            lambda: bool(stack.prometheus.samples(loss + of_run)), 60, "the job's first step's arrival", pause=0.5
        )
        for service in ("prometheus", "wandb-bridge"):
            container = stack.container(service)
            container.stop()
            time.sleep(OUTAGE)
            assert job.poll() is None, (tmp_path / "train.log").read_text()
            container.start()
            time.sleep(10)
        collector = stack.container("collector")
        collector.kill("SIGKILL")
        time.sleep(5)
        assert job.poll() is None, (tmp_path / "train.log").read_text()
        collector.start()
        assert job.wait(STEPS * PACE) == 0, (tmp_path / "train.log").read_text()

    def arrived() -> bool:
        (samples,) = stack.prometheus.samples(loss + of_run).values()
        return len(samples) >= STEPS and len(stack.wandb_rows(run_id, tmp_path)) >= STEPS

    wait_until(arrived, 120, "the last step's arrival in both", pause=0.5)
    (losses,) = stack.prometheus.samples(loss + of_run).values()
    (counts,) = stack.prometheus.samples(picked + of_run).values()
    wanted = [sum(picks(step, rank) for rank in range(RANKS)) for step in range(1, STEPS + 1)]
    assert [value for _, value in losses] == list(range(1, STEPS + 1))
    assert [value for _, value in counts] == list(itertools.accumulate(wanted))
    history = [row.values for row in stack.wandb_rows(run_id, tmp_path)]
    assert [row[rows.STEP.wandb_key] for row in history] == list(range(1, STEPS + 1))
    assert [row["train/loss"] for row in history] == list(range(1, STEPS + 1))
    assert [row[rows.PICKS.wandb_key] for row in history] == wanted
