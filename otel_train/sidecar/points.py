"""Turn a record's values into OTel data points. Pure: what is sent and when is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

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

from otel_train.catalogue import Instrument, Layout, Series, cluster_name, rows
from otel_train.catalogue import Metric as Row
from otel_train.ring import Identity

DataPoint = NumberDataPoint | HistogramDataPoint

SCOPE = InstrumentationScope("otel_train")
_CUMULATIVE = AggregationTemporality.CUMULATIVE


def resource_of(identity: Identity) -> Resource:
    """Return the OTel resource of a rank's process."""
    return Resource.create(
        {
            "service.name": identity.service_name,
            "service.instance.id": f"{identity.run_id}/{identity.attempt}/{identity.rank}",
            "train.run.id": identity.run_id,
            "train.attempt": identity.attempt,
            "train.rank": identity.rank,
            "train.local_rank": identity.local_rank,
            "train.world_size": identity.world_size,
            "host.name": identity.host,
        }
    )


class PointBuilder:
    """Collects the data points of one resource over several records, joined by metric.

    Args:
        identity: Whose points these are.
        layout: The places of the measures in its records.
    """

    def __init__(self, identity: Identity, layout: Layout) -> None:
        self._identity = identity
        self._layout = layout
        self._start_ns = identity.attempt * 1_000_000
        self._points: dict[str, tuple[Row, Instrument, list[DataPoint]]] = {}
        self._stepped: set[int] = set()

    def add_rank(self, step: int, time_ns: int, values: Sequence[float], totals: Sequence[float]) -> None:
        """Add a rank's own values.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [sums + peaks ...], the interval's.
            totals: float64 [sums], of all intervals so far, this one included.
        """
        sums, peaks, _ = self._layout.split(values)
        self._add_all(time_ns, (sums, peaks, ()), totals, cluster=False)
        self._add_step(step, time_ns)

    def add_cluster(self, step: int, time_ns: int, values: Sequence[float], totals: Sequence[float]) -> None:
        """Add the cluster's values; `values` holds sums, peaks, and the ranks of the peaks."""
        count = self._add_all(time_ns, self._layout.split(values), totals, cluster=True)
        name = cluster_name(rows.STEP_POINTS.name)
        self._number(name, rows.STEP_POINTS, rows.STEP_POINTS.instrument, time_ns, count + 1)
        self._add_step(step, time_ns)

    def add_pipeline(self, row: Row, time_ns: int, value: float) -> None:
        """Add a fact about the pipeline itself."""
        self._number(row.name, row, row.instrument, time_ns, value)

    def _add_step(self, step: int, time_ns: int) -> None:
        # A rank's record and the cluster's of the same step share their time stamp, and so this point.
        if time_ns not in self._stepped:
            self._stepped.add(time_ns)
            self._number(rows.STEP.name, rows.STEP, Instrument.GAUGE, time_ns, step)

    def _add_all(
        self,
        time_ns: int,
        parts: tuple[Sequence[float], Sequence[float], Sequence[float]],
        totals: Sequence[float],
        *,
        cluster: bool,
    ) -> int:
        sums, peaks, ranks = parts
        interval = self._layout.values(sums, peaks, ranks)
        running = self._layout.values(totals, peaks, ranks)
        count = 0
        for series, now, total in zip(self._layout.series, interval, running, strict=True):
            name = series.cluster_name if cluster else series.name
            if isinstance(total, tuple):
                self._histogram(name, series, time_ns, total)
            else:
                value = total if series.instrument is Instrument.COUNTER else now
                if value is None or isinstance(value, tuple):
                    continue
                attributes = {series.metric.attribute: series.attribute_value} if series.attribute_value else {}
                self._number(name, series.metric, series.instrument, time_ns, value, **attributes)
            count += 1
        return count

    def _number(
        self, name: str, row: Row, instrument: Instrument, time_ns: int, value: float, **attributes: str
    ) -> None:
        counts = instrument is Instrument.COUNTER
        point = NumberDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._start_ns if counts else 0,
            time_unix_nano=time_ns,
            value=int(value) if counts else value,
        )
        self._points.setdefault(name, (row, instrument, []))[2].append(point)

    def _histogram(self, name: str, series: Series, time_ns: int, value: tuple[float, ...]) -> None:
        *buckets, total = value
        counts = [int(count) for count in buckets]
        point = HistogramDataPoint(
            attributes={},
            start_time_unix_nano=self._start_ns,
            time_unix_nano=time_ns,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=series.metric.bounds,
            min=None,  # type: ignore[arg-type]  # optional in OTLP, and not known here
            max=None,  # type: ignore[arg-type]
        )
        self._points.setdefault(name, (series.metric, Instrument.HISTOGRAM, []))[2].append(point)

    @property
    def points(self) -> int:
        """How many points were added."""
        return sum(len(points) for _, _, points in self._points.values())

    def build(self) -> ResourceMetrics:
        """Return what was added."""
        metrics = [
            Metric(name=name, description=row.description, unit=row.unit, data=_data(instrument, points))
            for name, (row, instrument, points) in self._points.items()
        ]
        scope = ScopeMetrics(scope=SCOPE, metrics=metrics, schema_url="")
        return ResourceMetrics(resource=resource_of(self._identity), scope_metrics=[scope], schema_url="")


def _data(instrument: Instrument, points: list[DataPoint]) -> Sum | Gauge | Histogram:
    if instrument is Instrument.HISTOGRAM:
        histograms = [point for point in points if isinstance(point, HistogramDataPoint)]
        return Histogram(data_points=histograms, aggregation_temporality=_CUMULATIVE)
    numbers = [point for point in points if isinstance(point, NumberDataPoint)]
    if instrument is Instrument.COUNTER:
        return Sum(data_points=numbers, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
    return Gauge(data_points=numbers)
