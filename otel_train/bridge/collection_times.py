"""Give the points of one collection of an SDK the time of their step, where each instrument has been given its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_train.catalogue import rows

if TYPE_CHECKING:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint, ScopeMetrics

SIDECAR_SCOPE = "otel_train"
"""Scope of a sidecar's points, which have their step's time: a collector may have split its request anywhere."""
ONE_COLLECTION_NS = 10**8
"""Points of one collection are at most this far from each other."""
ONE_TICK_NS = 10**6
"""A clock that ticks in microseconds gives some instruments of a collection one time; two steps are farther apart."""


def align(scopes: Iterable[ScopeMetrics]) -> None:
    """Give a resource's points the time of its one `train.step`, where they are of one collection.

    The SDKs of Go and Rust stamp each instrument by itself, some microseconds apart: the points would all be of
    different steps. The times stay where one point has the step's time and another one differs by more than a tick, as
    in a request of several steps that was split. Where there are several steps, as of collections that a collector has
    put together, a point that is within a tick of one is of that.

    Args:
        scopes: The resource's metrics; their times are changed.
    """
    metrics = [metric for scope in scopes if scope.scope.name != SIDECAR_SCOPE for metric in scope.metrics]
    steps = sorted(
        {point.time_unix_nano for metric in metrics if metric.name == rows.STEP.name for point in data_points(metric)}
    )
    others = [point for metric in metrics if metric.name != rows.STEP.name for point in data_points(metric)]
    if not (steps and others):
        return
    if len(steps) > 1:
        for point in others:
            point.time_unix_nano = _nearest(steps, point.time_unix_nano)
        return
    (time_ns,) = steps
    distances = [abs(point.time_unix_nano - time_ns) for point in others]
    if max(distances) < (ONE_COLLECTION_NS if min(distances) else ONE_TICK_NS):
        for point in others:
            point.time_unix_nano = time_ns


def _nearest(steps: Sequence[int], time_ns: int) -> int:
    """Return the nearest of some sorted times, where it is within a tick; else the time itself."""
    index = bisect_left(steps, time_ns)
    nearest = min(steps[max(0, index - 1) : index + 1], key=lambda step_ns: abs(step_ns - time_ns))
    return nearest if abs(nearest - time_ns) < ONE_TICK_NS else time_ns


def data_points(metric: Metric) -> Sequence[NumberDataPoint]:
    """Return a metric's data points, whatever kind it is of (typed as the most common one)."""
    kind = metric.WhichOneof("data")
    points: Sequence[NumberDataPoint] = getattr(metric, kind).data_points if kind else ()
    return points
