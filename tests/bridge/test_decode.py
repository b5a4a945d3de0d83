"""What of an OTLP request concerns wandb."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from otel_train.bridge.decode import Kind, StepId, decode
from otel_train.catalogue import cluster_name, rank_name, rows
from tests.support.step_requests import BASE_NS, SECOND, step_request


def test_kind_follows_instrument() -> None:
    """Cumulative monotonic sums are differenced later, gauges taken as they are, histograms only counted."""
    request = step_request(
        7, {"loss": 0.5}, {f"{rows.TOKENS.name}|code": 2**60 + 1}, histogram=rows.REUSE_DISTANCE.name
    )
    kinds = {rank_name(p.name) or p.name: (p.kind, p.value, p.modality) for p in decode(request).points}
    assert kinds == {
        rows.STEP.name: (Kind.VALUE, 7, ""),
        "loss": (Kind.VALUE, 0.5, ""),
        rows.TOKENS.name: (Kind.CUMULATIVE, 2**60 + 1, "code"),
        rows.REUSE_DISTANCE.name: (Kind.PRESENT, 0, ""),
        rows.STEP_POINTS.name: (Kind.VALUE, 4, ""),
    }


def test_foreign_points_are_ignored() -> None:
    """Other ranks' points, plain names and another service's resource are accepted and ignored."""
    other, plain, foreign = step_request(1, {"loss": 1.0}, rank=3), step_request(1), step_request(1)
    plain.resource_metrics[0].scope_metrics[0].metrics[1].name = rows.PICKS.name
    del foreign.resource_metrics[0].resource.attributes[2]
    assert (decode(other).points, decode(foreign).points, decode(other).rejected) == ((), (), 0)
    assert [point.name for point in decode(plain).points] == [rows.STEP.name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: setattr(r.resource_metrics[0].resource.attributes[2].value, "string_value", "x" * 600),
        lambda r: setattr(r.resource_metrics[0].resource.attributes[0].value, "string_value", "soon"),
        lambda r: setattr(
            r.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0], "as_double", math.inf
        ),
        lambda r: setattr(r.resource_metrics[0].scope_metrics[0].metrics[1].gauge.data_points[0], "time_unix_nano", 0),
        lambda r: setattr(r.resource_metrics[0].scope_metrics[0].metrics[1], "name", cluster_name("n" * 600)),
    ],
    ids=["run id", "attempt", "step", "time", "name"],
)
def test_invalid_points_are_counted(damage: Callable[[Any], None]) -> None:
    """A point or resource that can't be right is named in the answer and never raises."""
    request = step_request(1, {"loss": 1.0})
    damage(request)
    decoded = decode(request)
    assert decoded.rejected >= 1
    assert decoded.reason


def test_collection_gets_one_time() -> None:
    """Some SDKs stamp each instrument a little later than the one before, and say who they are in text only."""
    request = step_request(1, {"loss": 0.5})
    (resource_metrics,) = request.resource_metrics
    for attribute in resource_metrics.resource.attributes[:2]:
        attribute.value.string_value = str(attribute.value.int_value)
    for delay, metric in enumerate(resource_metrics.scope_metrics[0].metrics):
        metric.gauge.data_points[0].time_unix_nano += 1000 * delay
    points = decode(request).points
    assert len(points) == 3
    assert {point.step_id for point in points} == {StepId("run", 1, BASE_NS + SECOND)}
