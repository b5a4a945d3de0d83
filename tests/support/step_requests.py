"""Build OTLP requests of steps, as the sidecar and a collector make them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_train.bridge.decode import Point, decode
from otel_train.catalogue import cluster_name, rows

SECOND = 10**9
BASE_NS = 1_790_000_000 * SECOND


def step_request(
    step: int,
    gauges: Mapping[str, float] | None = None,
    counters: Mapping[str, float] | None = None,
    *,
    run_id: str = "run",
    attempt: int = 1,
    rank: int = 0,
    histogram: str = "",
    counted: bool = True,
    number: int = 0,
) -> ExportMetricsServiceRequest:
    """Return the request of one step, as the sidecar and a collector make them.

    Args:
        step: Step, which also gives the time stamp.
        gauges: Values by name, as a rank names them: they become cluster-wide here. "name|modality" has that modality.
        counters: The same for cumulative sums.
        run_id: The run.
        attempt: The attempt.
        rank: The rank.
        histogram: Name of a histogram to add.
        counted: Whether the request tells how many points the step has.
        number: Index of the step's record; none is sent for 0.
    """
    request = ExportMetricsServiceRequest()
    resource_metrics = request.resource_metrics.add()
    for key, whole in (("train.attempt", attempt), ("train.rank", rank)):
        resource_metrics.resource.attributes.add(key=key).value.int_value = whole
    resource_metrics.resource.attributes.add(key="train.run.id").value.string_value = run_id
    metrics = resource_metrics.scope_metrics.add().metrics
    time_ns = BASE_NS + step * SECOND

    def fill(metric: Metric, key: str, value: float) -> None:
        point = getattr(metric, metric.WhichOneof("data") or "gauge").data_points.add(time_unix_nano=time_ns)
        if "|" in key:
            point.attributes.add(key="modality").value.string_value = key.partition("|")[2]
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value

    fill(metrics.add(name=rows.STEP.name), "", step)
    for key, value in (gauges or {}).items():
        fill(metrics.add(name=cluster_name(key.partition("|")[0])), key, value)
    for key, value in (counters or {}).items():
        metric = metrics.add(name=cluster_name(key.partition("|")[0]))
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        fill(metric, key, value)
    if histogram:
        metrics.add(name=cluster_name(histogram)).histogram.data_points.add(time_unix_nano=time_ns, count=3)
    if number:
        fill(metrics.add(name=cluster_name(rows.STEP_ORDINAL.name)), "", number)
    if counted:
        fill(metrics.add(name=cluster_name(rows.STEP_POINTS.name)), "", len(metrics))
        metrics[-1].gauge.data_points[0].as_int = len(metrics) - 1  # all but train.step
    return request


def split_request(request: ExportMetricsServiceRequest) -> list[ExportMetricsServiceRequest]:
    """Return a request split into one per metric, as a collector may."""
    parts = []
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        part = copy.deepcopy(request)
        del part.resource_metrics[0].scope_metrics[0].metrics[:]
        part.resource_metrics[0].scope_metrics[0].metrics.append(metric)
        parts.append(part)
    return parts


def runs_request(runs: Iterable[str], step: int) -> ExportMetricsServiceRequest:
    """Return one request with a step of several runs, as a collector sends them."""
    request = ExportMetricsServiceRequest()
    for run_id in runs:
        request.MergeFrom(step_request(step, {"loss": 0.5}, run_id=run_id, number=step))
    return request


def numbered_points(step: int, **options: Any) -> list[Point]:
    """Return the points of a step as a sidecar sends them: a gauge, a counter, a number that grows by one."""
    request = step_request(10 * step, {"loss": step / 2}, {rows.PICKS.name: 4 * step}, number=step, **options)
    return list(decode(request).points)
