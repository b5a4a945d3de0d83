"""An OTLP message's points as the OTel SDK's own objects, which the SDK's encoder takes."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_CUMULATIVE = AggregationTemporality.CUMULATIVE


def to_sdk(message: Any) -> ResourceMetrics:
    """Return OTLP's ResourceMetrics, of points like ours, as the SDK's."""
    (scope,) = message.scope_metrics
    resource = Resource({pair.key: _any(pair.value) for pair in message.resource.attributes})
    metrics = [Metric(metric.name, metric.description, metric.unit, _data(metric)) for metric in scope.metrics]
    return ResourceMetrics(resource, [ScopeMetrics(InstrumentationScope(scope.scope.name), metrics, "")], "")


def _data(metric: Any) -> Gauge | Sum | Histogram:
    if metric.WhichOneof("data") == "gauge":
        return Gauge([_number(point) for point in metric.gauge.data_points])
    if metric.WhichOneof("data") == "sum":
        points = [_number(point) for point in metric.sum.data_points]
        return Sum(points, aggregation_temporality=_CUMULATIVE, is_monotonic=metric.sum.is_monotonic)
    return Histogram([_histogram(point) for point in metric.histogram.data_points], _CUMULATIVE)


def _number(point: Any) -> NumberDataPoint:
    value = getattr(point, point.WhichOneof("value"))
    return NumberDataPoint(_attributes(point), point.start_time_unix_nano, point.time_unix_nano, value)


def _histogram(point: Any) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=_attributes(point),
        start_time_unix_nano=point.start_time_unix_nano,
        time_unix_nano=point.time_unix_nano,
        count=point.count,
        sum=point.sum,
        bucket_counts=list(point.bucket_counts),
        explicit_bounds=list(point.explicit_bounds),
        min=None,  # type: ignore[arg-type]  # optional in OTLP
        max=None,  # type: ignore[arg-type]
    )


def _attributes(point: Any) -> dict[str, Any]:
    return {pair.key: _any(pair.value) for pair in point.attributes}


def _any(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
