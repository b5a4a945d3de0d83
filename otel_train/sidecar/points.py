"""Turn records' values into an OTLP message. Pure: what is sent and when is decided elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_train.catalogue import Instrument, Layout, Phase, cluster_name, rows
from otel_train.catalogue import Metric as Row
from otel_train.ring import Identity
from otel_train.sidecar.templates import Series

SCOPE = InstrumentationScope("otel_train")


def resource_of(identity: Identity) -> Resource:
    """Return the OTel resource of a rank's process.

    The attributes that the standard's variables give to the rank stand above those that they give to the sidecar, and
    both above what was made up for the rank.
    """
    made_up = Resource({"service.name": identity.service_name, "host.name": identity.host})
    own: dict[str, str | int] = {
        "service.instance.id": f"{identity.run_id}/{identity.attempt}/{identity.rank}",
        "train.run.id": identity.run_id,
        "train.attempt": identity.attempt,
        "train.rank": identity.rank,
        "train.local_rank": identity.local_rank,
        "train.world_size": identity.world_size,
    }
    given = {name: value for name, value in OTELResourceDetector().detect().attributes.items() if value != ""}
    given |= {**identity.attributes, **own}
    return Resource.create().merge(made_up).merge(Resource(given))


class Origin:
    """What all points of one ring have in common, made once.

    Args:
        identity: Whose points these are.
        layout: The places of the measures in its records.
    """

    def __init__(self, identity: Identity, layout: Layout) -> None:
        scope = ScopeMetrics(scope=SCOPE, metrics=[], schema_url="")
        empty = ResourceMetrics(resource=resource_of(identity), scope_metrics=[scope], schema_url="")
        (self.empty,) = encode_metrics(MetricsData(resource_metrics=[empty])).resource_metrics
        """The message without a metric, as the SDK encodes it."""
        self.layout = layout
        start_ns = identity.attempt * 1_000_000
        self.rank, self.cluster = (
            [
                Series(name, each.metric, each.instrument, start_ns, attribute=each.attribute_value)
                for name, each in zip(names, layout.series, strict=True)
            ]
            for names in ([each.name for each in layout.series], [each.cluster_name for each in layout.series])
        )
        """Each of the layout's series, for one rank's values and for the cluster's."""
        points = rows.STEP_POINTS
        self.step = Series(rows.STEP.name, rows.STEP, Instrument.GAUGE, start_ns, integer=True)
        self.step_points = Series(cluster_name(points.name), points, points.instrument, start_ns, integer=True)
        ordinal = rows.STEP_ORDINAL
        self.step_ordinal = Series(cluster_name(ordinal.name), ordinal, ordinal.instrument, start_ns, integer=True)
        self.pipeline = {
            (row.name, value): Series(row.name, row, row.instrument, start_ns, attribute=value)
            for row in rows.PIPELINE
            for value in ([phase.name.lower() for phase in Phase] if row.attribute else [""])
        }
        """By name and, where it has an attribute, by that: a phase."""
        every = [
            *self.rank,
            *self.cluster,
            self.step,
            self.step_points,
            self.step_ordinal,
            *self.pipeline.values(),
        ]
        self.metrics = {series.key: series.metric for series in every}
        """The metrics without a point."""


class PointBuilder:
    """Collects the data points of one ring over several records, joined by metric.

    What can't be encoded raises when it is added.

    Args:
        origin: What they have in common.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._points: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self._stepped: set[int] = set()

    def add_rank(self, step: int, time_ns: int, values: Sequence[float], totals: Sequence[float]) -> None:
        """Add a rank's own values.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [sums + peaks ...], the interval's.
            totals: float64 [sums], of all intervals so far, this one included.
        """
        sums, peaks, _ = self._origin.layout.split(values)
        self._add_all(self._origin.rank, time_ns, (sums, peaks, ()), totals)
        self._add_step(step, time_ns)

    def add_cluster(
        self, step: int, time_ns: int, values: Sequence[float], totals: Sequence[float], *, ordinal: int = 0
    ) -> None:
        """Add the cluster's values.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [sums + peaks + peaks], the interval's, with the ranks of the peaks.
            totals: float64 [sums], of all intervals so far, this one included.
            ordinal: Which of the attempt's records of the cluster's values it is; 0 where that is not known.
        """
        count = self._add_all(self._origin.cluster, time_ns, self._origin.layout.split(values), totals)
        if ordinal:
            self._add(self._origin.step_ordinal, time_ns, ordinal)
            count += 1
        self._add(self._origin.step_points, time_ns, count + 1)
        self._add_step(step, time_ns)

    def add_pipeline(self, row: Row, time_ns: int, value: float, attribute_value: str = "") -> None:
        """Add a fact about the pipeline itself."""
        self._add(self._origin.pipeline[row.name, attribute_value], time_ns, value)

    def _add_step(self, step: int, time_ns: int) -> None:
        # A rank's record and the cluster's of the same step share their time stamp, and so this point.
        if time_ns not in self._stepped:
            self._stepped.add(time_ns)
            self._add(self._origin.step, time_ns, step)

    def _add_all(
        self,
        all_series: Sequence[Series],
        time_ns: int,
        parts: tuple[Sequence[float], Sequence[float], Sequence[float]],
        totals: Sequence[float],
    ) -> int:
        sums, peaks, ranks = parts
        points, count = self._points, 0
        for series, value in zip(all_series, self._origin.layout.exported(sums, totals, peaks, ranks), strict=True):
            if value is not None:
                points[series.key].append(series.pack(time_ns, value))
                count += 1
        return count

    def _add(self, series: Series, time_ns: int, value: Any) -> None:
        self._points[series.key].append(series.pack(time_ns, value))

    @property
    def points(self) -> int:
        """How many points were added."""
        return sum(map(len, self._points.values()))

    def write(self, message: Any) -> None:
        """Put what was added into OTLP's ResourceMetrics, which is empty."""
        message.CopyFrom(self._origin.empty)
        metrics = message.scope_metrics[0].metrics
        for (name, field), points in self._points.items():
            metric = metrics.add()
            metric.CopyFrom(self._origin.metrics[name, field])
            getattr(metric, field).MergeFromString(b"".join(points))
