"""Turn records' values into an OTLP message. Pure: other modules decide what is sent, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_train.catalogue import Instrument, Layout, Phase, cluster_name, rows
from otel_train.catalogue import Metric as Row
from otel_train.catalogue import Series as Entry
from otel_train.host_clock import Reference
from otel_train.refusals import OTHER, Refusal
from otel_train.ring import Fact, Identity
from otel_train.sidecar.point_templates import Series
from otel_train.sidecar.settings import NAME as SETTING_NAME
from otel_train.sidecar.settings import setting_points

SCOPE = InstrumentationScope("otel_train")
LIVE_SUFFIX = "/sidecar"
"""End of the `service.instance.id` of the points that describe a rank's state and the sending."""
KEPT_LAYOUTS = 4
"""Layouts of a ring whose series are kept; each late key makes new ones, and the old ones are of no more use."""


_VALUES: dict[Row, tuple[str, ...]] = {
    rows.STEP_AGE: tuple(phase.name.lower() for phase in Phase),
    rows.POINTS_REFUSED: (*Refusal, OTHER),
    rows.CLOCK_OFFSET: (*Reference,),
}
"""Values of the attribute of the rows that have one."""


def resource_of(identity: Identity) -> Resource:
    """Return the OTel resource of a rank's process.

    The attributes that the standard's variables give to the rank override those that they give to the sidecar, and both
    override the defaults that were made for the rank.
    """
    defaults = Resource({"service.name": identity.service_name, "host.name": identity.host})
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
    return Resource.create().merge(defaults).merge(Resource(given))


def _live(empty: Any) -> Any:
    """Return the message of the sidecar that serves a rank: another instance, with the same attributes otherwise."""
    live = type(empty).FromString(empty.SerializeToString())
    for attribute in live.resource.attributes:
        if attribute.key == "service.instance.id":
            attribute.value.string_value += LIVE_SUFFIX
    return live


class Origin:
    """Resource and series of all points of one ring, made once; those of late keys when they come.

    Args:
        identity: Whose points these are.
        layout: The offsets of the measures in its records, without late keys.
    """

    def __init__(self, identity: Identity, layout: Layout) -> None:
        scope = ScopeMetrics(scope=SCOPE, metrics=[], schema_url="")
        empty = ResourceMetrics(resource=resource_of(identity), scope_metrics=[scope], schema_url="")
        (self.empty,) = encode_metrics(MetricsData(resource_metrics=[empty])).resource_metrics
        """The message without a metric, as the SDK encodes it."""
        self.live = _live(self.empty)
        """The same for live points: their times are the present's, and a record yet to be sent is older."""
        self.layout = layout
        self._start_ns = start_ns = identity.attempt * 1_000_000
        self._series: dict[tuple[str, str], Series] = {}
        """By name and attribute."""
        self._of_layouts: dict[Layout, tuple[list[Series], list[Series]]] = {}
        self.metrics: dict[tuple[str, str], Any] = {}
        """The metrics without a point."""
        points = rows.STEP_POINTS
        self.step = Series(rows.STEP.name, rows.STEP, Instrument.GAUGE, start_ns, integer=True)
        self.step_points = Series(cluster_name(points.name), points, points.instrument, start_ns, integer=True)
        ordinal = rows.STEP_ORDINAL
        self.step_ordinal = Series(cluster_name(ordinal.name), ordinal, ordinal.instrument, start_ns, integer=True)
        self.pipeline = {
            (row.name, value): Series(row.name, row, row.instrument, start_ns, attribute=value)
            for row in rows.PIPELINE
            if row is not rows.SETTING
            for value in _VALUES.get(row, ("",))
        }
        """By name and, where it has an attribute, by that."""
        self.setting = Series(SETTING_NAME, rows.SETTING, Instrument.GAUGE, 0)
        for series in (self.step, self.step_points, self.step_ordinal, self.setting, *self.pipeline.values()):
            self.metrics[series.key] = series.metric
        self.series_of(layout)

    def series_of(self, layout: Layout) -> tuple[list[Series], list[Series]]:
        """Return a layout's series, for one rank's values and for the cluster's."""
        if layout not in self._of_layouts:
            while len(self._of_layouts) >= KEPT_LAYOUTS:
                del self._of_layouts[next(iter(self._of_layouts))]
            self._of_layouts[layout] = (
                [self._one(entry.name, entry) for entry in layout.series],
                [self._one(entry.cluster_name, entry) for entry in layout.series],
            )
        return self._of_layouts[layout]

    def _one(self, name: str, entry: Entry) -> Series:
        key = name, entry.attribute_value
        if key not in self._series:
            attribute = entry.attribute_value
            made = Series(name, entry.metric, entry.instrument, self._start_ns, attribute=attribute)
            self._series[key] = made
            self.metrics[made.key] = made.metric
        return self._series[key]


class Part(NamedTuple):
    """A piece of a request, which is a request itself: pieces joined in order are one too."""

    body: bytes
    points: int
    live: bool
    """Whether it describes the sending."""


class PointBuilder:
    """Collects the data points of one ring over several records, joined by metric.

    A value that can't be encoded raises when it is added.

    Args:
        origin: Their resource and series.
        live: Whether the points describe the sending, at the present.
    """

    def __init__(self, origin: Origin, *, live: bool = False) -> None:
        self._origin = origin
        self._live = live
        self._points: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.points = 0
        """How many points were added."""
        self.size = 0
        """Bytes of the points."""

    def add_rank(
        self,
        step: int,
        time_ns: int,
        values: Sequence[float],
        totals: Sequence[float],
        *,
        names_step: bool = True,
        layout: Layout | None = None,
    ) -> None:
        """Add a rank's own values.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [sums + peaks ...], the interval's.
            totals: float64 [sums], of all intervals so far, this one included.
            names_step: Whether `train.step` is added too.
            layout: The offsets of the measures in `values`; None where they are the origin's.
        """
        layout = layout or self._origin.layout
        sums, peaks, _ = layout.split(values)
        self._add_all(layout, self._origin.series_of(layout)[0], time_ns, (sums, peaks, ()), totals)
        if names_step:
            self._add(self._origin.step, time_ns, step)

    def add_cluster(
        self,
        step: int,
        time_ns: int,
        values: Sequence[float],
        totals: Sequence[float],
        *,
        ordinal: int = 0,
        names_step: bool = True,
        layout: Layout | None = None,
        partial: bool = False,
    ) -> None:
        """Add the cluster's values.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [sums + peaks + peaks], the interval's, with the ranks of the peaks.
            totals: float64 [sums], of all intervals so far, this one included.
            ordinal: Running number of the attempt's cluster record; 0 where it is unknown.
            names_step: Whether `train.step` is added too.
            layout: The offsets of the measures in `values`; None where they are the origin's.
            partial: Whether values are missing that may have been sent: how many points there are is left out then.
        """
        layout = layout or self._origin.layout
        count = self._add_all(layout, self._origin.series_of(layout)[1], time_ns, layout.split(values), totals)
        if ordinal:
            self._add(self._origin.step_ordinal, time_ns, ordinal)
            count += 1
        if not partial:
            self._add(self._origin.step_points, time_ns, count + 1)
        if names_step:
            self._add(self._origin.step, time_ns, step)

    def add_pipeline(self, row: Row, time_ns: int, value: float, attribute_value: str = "") -> None:
        """Add a fact about the pipeline itself."""
        self._add(self._origin.pipeline[row.name, attribute_value], time_ns, value)

    def add_settings(self, settings: Mapping[str, Fact], time_ns: int) -> None:
        """Add the job's settings."""
        for point in setting_points(settings, time_ns):
            self.add(self._origin.setting.key, point)

    def _add_all(
        self,
        layout: Layout,
        all_series: Sequence[Series],
        time_ns: int,
        parts: tuple[Sequence[float], Sequence[float], Sequence[float]],
        totals: Sequence[float],
    ) -> int:
        sums, peaks, ranks = parts
        points, count, size = self._points, 0, 0
        for series, value in zip(all_series, layout.exported(sums, totals, peaks, ranks), strict=True):
            if value is not None:
                point = series.pack(time_ns, value)
                points[series.key].append(point)
                size += len(point)
                count += 1
        self.points += count
        self.size += size
        return count

    def _add(self, series: Series, time_ns: int, value: Any) -> None:
        self.add(series.key, series.pack(time_ns, value))

    def add(self, key: tuple[str, str], point: bytes) -> None:
        """Add a point that is encoded, to the metric of that name and kind."""
        self._points[key].append(point)
        self.points += 1
        self.size += len(point)

    def leave_out(self, names: Container[str]) -> int:
        """Remove the points of these metrics, and return how many they were."""
        count = 0
        for key in [key for key in self._points if key[0] in names]:
            points = self._points.pop(key)
            count += len(points)
            self.size -= sum(map(len, points))
        self.points -= count
        return count

    def halves(self) -> tuple[PointBuilder, PointBuilder]:
        """Return the first half of the points and the other half, each with one point at least where there are two."""
        halves = PointBuilder(self._origin, live=self._live), PointBuilder(self._origin, live=self._live)
        items = [(key, point) for key, points in self._points.items() for point in points]
        for index, (key, point) in enumerate(items):
            halves[2 * index >= len(items)].add(key, point)
        return halves

    @property
    def names(self) -> list[str]:
        """The metrics that have points, in their order."""
        return [name for name, _ in self._points]

    def write(self, message: Any) -> None:
        """Write the points into OTLP's ResourceMetrics, which is empty."""
        message.CopyFrom(self._origin.live if self._live else self._origin.empty)
        metrics = message.scope_metrics[0].metrics
        for (name, field), points in self._points.items():
            metric = metrics.add()
            metric.CopyFrom(self._origin.metrics[name, field])
            getattr(metric, field).MergeFromString(b"".join(points))

    def parts(self, limit: int) -> list[Part]:
        """Return the points as requests of `limit` bytes at most, unless a single point is larger."""
        request: Any = ExportMetricsServiceRequest()
        self.write(request.resource_metrics.add())
        body = request.SerializeToString()
        if len(body) <= limit or self.points == 1:
            return [Part(body, self.points, self._live)]
        return [part for half in self.halves() for part in half.parts(limit)]
