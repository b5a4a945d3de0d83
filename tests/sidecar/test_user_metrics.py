"""Rings whose numbers are anything, and what a user's own metrics mean, on their way to the bridge."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import otel_train
from otel_train.bridge.decode import StepId, decode
from otel_train.bridge.wandb_rows import Arrived, Row, SeriesKey, build_row
from otel_train.catalogue import BY_SOURCE, LEDGER, MIXING, TIMING, Instrument, Metric, Reduction
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_files, ring_path
from otel_train.sidecar.feed import RingFeed
from tests.support.rank_ring import FIRST_TIME, SECOND

OWN = (
    Metric("mean"),
    Metric("sum", Reduction.SUM),
    Metric("max", Reduction.MAX),
    Metric("seconds", Reduction.SUM, Instrument.COUNTER, unit="s", description="Seconds on the GPU."),
)
LOSS = Metric("train/loss", attribute=BY_SOURCE)
SCHEMA = Schema((*MIXING, *LEDGER, *OWN, LOSS), ("a", "b"))
LAYOUT = SCHEMA.layout()
WIDTH = LAYOUT.sums + 2 * LAYOUT.peaks
RINGS = itertools.count()


def sent(path: Path) -> ExportMetricsServiceRequest:
    """Return what a sidecar sends of a ring."""
    feed = RingFeed(path, rank_interval=0.0)
    request = ExportMetricsServiceRequest()
    while (batch := feed.next()) is not None:
        if batch.metrics is not None:
            batch.metrics.write(request.resource_metrics.add())
        feed.commit(batch)
        if feed.drained:
            break
    feed.reader.close()
    return request


def metrics_of(request: ExportMetricsServiceRequest) -> dict[str, Any]:
    """Return a request's metrics by name."""
    scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def rows_of(request: ExportMetricsServiceRequest) -> list[Row]:
    """Return the wandb rows that the bridge makes of a request."""
    steps: dict[StepId, list[Arrived]] = {}
    for point in decode(request).points:
        steps.setdefault(point.step_id, []).append(point[1:])
    totals: dict[SeriesKey, float] = {}
    made = []
    for step_id in sorted(steps, key=lambda step_id: step_id.time_ns):
        row, changed = build_row(steps[step_id], totals, attempt=1, step=None)
        totals |= changed
        made.append(row)
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(values=[math.inf if index == LAYOUT.offsets["seconds"] else 1.0 for index in range(WIDTH)])
@given(
    values=st.lists(
        st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308, -1e308, 2.0**63]),
        min_size=WIDTH,
        max_size=WIDTH,
    )
)
def test_bad_number_spares_others(values: list[float], tmp_path: Path) -> None:
    """A count that is not finite counts nothing, a gauge is sent as what it is, and the next record arrives."""
    identity = Identity(run_id="run", attempt=next(RINGS))
    ring = RingWriter(ring_path(tmp_path, identity), SCHEMA, identity, records=8)
    mean, seconds = LAYOUT.offsets["mean:total"], LAYOUT.offsets["seconds"]
    values[mean + 1], values[seconds] = 1.0, abs(values[seconds])
    for step, written in enumerate((values, [1.0] * WIDTH), start=1):
        ring.write(step, FIRST_TIME + step * SECOND, Kind.CLUSTER, written)
    ring.close(2, FIRST_TIME)
    first, last = rows_of(sent(ring.path))[:2]
    assert first["mean"] == pytest.approx(values[mean], nan_ok=True)
    count = values[seconds] if math.isfinite(values[seconds]) else 0.0
    if count < 2**52:
        assert first["seconds"] == count
        assert last["seconds"] == pytest.approx(1.0, abs=1e-3)


def test_user_metrics_arrive_as_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's metrics keep instrument, unit and description; a step without a value has no key for it in wandb."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    with otel_train.init(ring_dir=tmp_path, metrics=OWN, close_timeout=0.01) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {} if step == 2 else {"mean": step, "sum": step, "max": step, "seconds": 0.25})
    (path,) = ring_files(tmp_path)
    request = sent(path)
    names = [metric.name for metric in OWN]
    assert [{key: row[key] for key in names if key in row} for row in rows_of(request)] == [
        {"mean": 1.0, "sum": 1.0, "max": 1.0, "seconds": 0.25},
        {"seconds": 0.0},
        {"mean": 3.0, "sum": 3.0, "max": 3.0, "seconds": 0.25},
    ]
    seconds = metrics_of(request)["cluster/seconds"]
    assert (seconds.unit, seconds.description, seconds.sum.is_monotonic) == ("s", "Seconds on the GPU.", True)
    assert [point.as_double for point in seconds.sum.data_points] == [0.25, 0.25, 0.5]


def test_losses_arrive_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's and the cluster's loss come whole and by source; a source without rows has neither point nor key."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    loss = otel_train.Scalar("train/loss", by=("code", "prose"), unit="1")
    with otel_train.init(ring_dir=tmp_path, metrics=[loss], close_timeout=0.01) as telemetry:
        telemetry.step(1, {"train/loss": [1.0, 3.0, 8.0]}, by=["code", "code", None])
        telemetry.step(2, {"train/loss": [2.0]}, by=["prose"])
    request = sent(ring_files(tmp_path)[0])
    rows = [{key: value for key, value in row.items() if key.startswith("train/loss")} for row in rows_of(request)]
    assert rows == [
        {"train/loss": 4.0, "train/loss/code": 2.0},
        {"train/loss": 2.0, "train/loss/prose": 2.0},
    ]
    for name in ("train/loss", "train/cluster/loss"):
        metric = metrics_of(request)[name]
        points = [
            (*((label.key, label.value.string_value) for label in point.attributes), point.as_double)
            for point in metric.gauge.data_points
        ]
        assert points == [(4.0,), (("modality", "code"), 2.0), (2.0,), (("modality", "prose"), 2.0)]
    assert RingReader(ring_files(tmp_path)[0]).schema == Schema((*TIMING, loss.as_metric()), ("code", "prose"))
