"""The panel "Loss by source" on a real Prometheus: each source's newest loss, and that of all rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import otel_train
from otel_train.render.dashboards import queries
from otel_train.sidecar import Sidecar
from tests.support.prometheus import running_prometheus


@pytest.mark.stack
def test_panel_shows_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source without rows in the newest step keeps its last value for as long as Prometheus looks back."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    loss = otel_train.Scalar("train/loss", by=("code", "prose", "math"))
    rings = tmp_path / "rings"
    with otel_train.init(metrics=[loss], ring_dir=rings, run_id="by-source", close_timeout=0.01) as telemetry:
        telemetry.step(1, {"train/loss": [1.0, 3.0, 8.0]}, by=["code", "prose", None])
        time.sleep(0.01)
        telemetry.step(2, {"train/loss": [2.0, 6.0]}, by=["code", None])
    expressions = [query.expression for query in queries() if query.panel == "Loss by source"]
    with running_prometheus(tmp_path) as prometheus:
        prometheus.export_here(monkeypatch)
        sidecar = Sidecar(rings, rank_interval=0.0)
        sidecar.wind_up()
        sidecar.run()
        time.sleep(1)

        def values(expression: str) -> dict[str, float]:
            query = expression.replace("$run", "by-source").replace("$attempt", ".*")
            result: list[dict[str, Any]] = prometheus.get("query", query=query)["result"]
            return {one["metric"].get("modality", ""): float(one["value"][1]) for one in result}

        by_source, whole = map(values, expressions)
    assert (by_source, whole) == ({"code": 2.0, "prose": 3.0}, {"": 4.0})
