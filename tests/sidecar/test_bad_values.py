"""Rings whose numbers are anything, and what a user's own metrics mean, on their way to the bridge."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Sum

import otel_train
from otel_train.bridge.decode import StepId, decode
from otel_train.bridge.wandb_rows import Arrived, Row, SeriesKey, build_row
from otel_train.catalogue import LEDGER, MIXING, Instrument, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_files, ring_path
from otel_train.sidecar import Sidecar
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.templates import number
from tests.sidecar.conftest import FIRST_TIME

OWN = (
    Metric("mean"),
    Metric("sum", Reduction.SUM),
    Metric("max", Reduction.MAX),
    Metric("seconds", Reduction.SUM, Instrument.COUNTER, unit="s", description="Seconds on the GPU."),
)
SCHEMA = Schema((*MIXING, *LEDGER, *OWN), ("a", "b"))
LAYOUT = SCHEMA.layout()
WIDTH = LAYOUT.sums + 2 * LAYOUT.peaks
RINGS = itertools.count()
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308, -1e308, 2.0**63])


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


def rows_of(request: ExportMetricsServiceRequest) -> list[Row]:
    """Return the wandb rows that the bridge makes of a request."""
    steps: dict[StepId, list[Arrived]] = {}
    for point in decode(request).points:
        steps.setdefault(point.step_id, []).append(Arrived(*point[1:]))
    totals: dict[SeriesKey, float] = {}
    made = []
    for step_id in sorted(steps, key=lambda each: each.time_ns):
        row, changed = build_row(steps[step_id], totals, attempt=1, step=None)
        totals |= changed
        made.append(row)
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(FLOATS, min_size=WIDTH, max_size=WIDTH))
def test_bad_number_spares_others(values: list[float], tmp_path: Path) -> None:
    """What can't be counted counts nothing, and a gauge is sent as what it is."""
    identity = Identity(run_id="run", attempt=next(RINGS))
    ring = RingWriter(ring_path(tmp_path, identity), SCHEMA, identity, records=8)
    mean, seconds = LAYOUT.offsets["mean:total"], LAYOUT.offsets["seconds"]
    values[mean + 1], values[seconds] = 1.0, abs(values[seconds])
    for step, written in enumerate((values, [1.0] * WIDTH), start=1):
        ring.write(step, FIRST_TIME + step * 10**9, Kind.CLUSTER, written)
    ring.close(2, FIRST_TIME)
    first, last = rows_of(sent(ring.path))[:2]
    assert first["mean"] == pytest.approx(values[mean], nan_ok=True)
    count = values[seconds] if math.isfinite(values[seconds]) else 0.0
    if count < 2**52:
        assert first["seconds"] == count
        assert last["seconds"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "expected"), [(math.inf, 2**63 - 1), (-1e300, -(2**63)), (math.nan, 0), (2**63, 2**63 - 1), (7.0, 7)]
)
def test_oversized_integer_is_clamped(value: float, expected: int) -> None:
    """What the protocol's type can't hold keeps no request back."""
    message = Sum.FromString(number(integer=True)(1, value))
    assert [point.as_int for point in message.data_points] == [expected]


def test_user_metrics_arrive_as_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instrument, whole counts of parts, unit and description; and what nobody gave has no key in wandb."""
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
    metrics = {
        metric.name: metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    seconds = metrics["cluster/seconds"]
    assert (seconds.unit, seconds.description, seconds.sum.is_monotonic) == ("s", "Seconds on the GPU.", True)
    assert [point.as_double for point in seconds.sum.data_points] == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("option", ["rank_interval", "linger", "grace"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_invalid_seconds_are_refused(option: str, seconds: Any, tmp_path: Path) -> None:
    """The option is named; no ring is left out for it."""
    with pytest.raises(ConfigurationError, match=f"sidecar: {option} must be a finite number of seconds"):
        Sidecar(tmp_path, **{option: seconds})
