"""Scalars that are not numbers, from the training loop to the wandb file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import otel_train
from otel_train.bridge import Bridge, BridgeConfig, delivered_steps, read_history, wandb_files
from tests.support.commands import wandb_history
from tests.support.waiting import wait_until


@pytest.mark.e2e
def test_non_finite_values_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN and the infinities pass the ring, OTLP, the inbox and wandb's own reader; the other values are right."""
    losses = {1: math.nan, 2: math.inf, 3: -math.inf, 4: 0.5}
    metrics = [
        otel_train.Metric("largest", otel_train.Reduction.MAX),
        otel_train.Metric("least", otel_train.Reduction.MIN),
    ]
    with Bridge(BridgeConfig(state=tmp_path / "bridge", listen="127.0.0.1:0")) as bridge:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{bridge.address}")
        with otel_train.init(run_id="broken", ring_dir=tmp_path / "rings", metrics=metrics) as telemetry:
            for step, loss in losses.items():
                telemetry.step(step, {"loss": loss, "largest": loss, "least": loss, "fine": step})
        wait_until(
            lambda: delivered_steps(tmp_path / "bridge", "broken") == 4, 90, log=tmp_path / "rings" / "sidecar.log"
        )
    (file,) = wandb_files(tmp_path / "bridge", "broken")
    for rows in (wandb_history(file), [row.values for row in read_history(file)]):
        assert [row["fine"] for row in rows] == [1, 2, 3, 4]
        for key in ("loss", "largest", "least"):
            assert [float(row[key]) for row in rows] == pytest.approx(list(losses.values()), nan_ok=True)
