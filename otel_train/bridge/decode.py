"""Decode an OTLP metrics request into the data points that wandb rows are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags

from otel_train.bridge.collection_times import SIDECAR_SCOPE, align, data_points
from otel_train.bridge.job_points import SETTING_NAME, SessionEnd, Setting, exit_codes, settings_in
from otel_train.catalogue import MAX_TEXT, rank_name, rows

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint, ResourceMetrics

RUN_ID_ATTRIBUTE = "train.run.id"
ATTEMPT_ATTRIBUTE = "train.attempt"
RANK_ATTRIBUTE = "train.rank"
SIZE_ATTRIBUTE = "train.world_size"
MODALITY_ATTRIBUTE = rows.MODALITY_SHARE.attribute

MAX_ATTRIBUTES = 128
"""Attributes of a resource or a point, as many as the SDKs keep; one with more is refused."""
MAX_ITEMS = 65_536
"""Resources, scopes, metrics and points of a request, in all. A collector's batch has some 8,000; empty ones,
which take two bytes each, would keep a worker for a minute."""
TOO_MANY = f"a request has more than {MAX_ITEMS} resources, metrics and points; send less"
_MOST_COUNTED = 4 * MAX_ITEMS
_INT64_MAX = 2**63 - 1
_NO_VALUE = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK


class Kind(IntEnum):
    """Way in which a point's value becomes a row's; the numbers are stored in the inbox, so they never change."""

    VALUE = 0
    """Used as it is: a gauge, a sum that may fall."""
    CUMULATIVE = 1
    """A monotonic total since the attempt's start: the row gets what was added since the row before."""
    PRESENT = 2
    """Counted as arrived, never sent to wandb: histograms and points without a value."""
    DELTA = 3
    """An amount since the collection before, used as it is."""


class StepId(NamedTuple):
    """Key of a step: its run, its attempt and the common time stamp of its points."""

    run_id: str
    attempt: int
    time_ns: int


class Point(NamedTuple):
    """One cluster-wide data point, or the `train.step` of its step; a tuple, as there are thousands in a request."""

    step_id: StepId
    name: str
    modality: str
    kind: Kind
    value: float
    """An int where the sender gave one, so that counters stay exact; 0 for a point that is only present."""


_make_point = partial(tuple.__new__, Point)
"""Makes a point of a tuple of its parts, in half of the time that its constructor takes."""

MOST_REASONS = 3
"""Reasons that the sender of a request is told."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Points of a request, and how many others were refused and why."""

    points: tuple[Point, ...]
    rejected: int = 0
    reason: str = ""
    ends: tuple[SessionEnd, ...] = ()
    """Ends of ranks' sessions."""
    settings: tuple[Setting, ...] = ()
    """Settings of the jobs."""
    stamped_apart: frozenset[tuple[str, int]] = frozenset()
    """Run and attempt of senders other than sidecars: some of their SDKs give the points of one step several times."""


class _RefusedError(Exception):
    """A resource or a point breaks a rule."""


def decode(request: ExportMetricsServiceRequest) -> Decoded:
    """Flatten a request to the points that concern wandb.

    Points of other ranks than 0, of resources without a run id (another service's) and of plain names are valid but
    not for wandb: they are left out silently, not refused.

    Args:
        request: The message of an OTLP sender; nothing in it is trusted.

    Returns:
        The points, in the request's order, what was refused, and what is told of the jobs.
    """
    points: list[Point] = []
    ends: list[SessionEnd] = []
    settings: list[Setting] = []
    apart, of_sidecars = set[tuple[str, int]](), set[tuple[str, int]]()
    parts, rejected = _within_bounds(request)
    reasons = dict[str, None]()
    if rejected:
        _note(reasons, TOO_MANY)
    for resource_metrics in parts:
        metrics = [metric for scope in resource_metrics.scope_metrics for metric in scope.metrics]
        attributes, codes = resource_metrics.resource.attributes, list(exit_codes(metrics))
        try:
            is_first_rank = _is_first_rank(attributes)
            identity = _identity(attributes) if is_first_rank or codes else None
        except _RefusedError as error:
            rejected += sum(len(data_points(metric)) for metric in metrics)
            _note(reasons, error)
            continue
        if identity is None:
            continue
        ends.extend(SessionEnd(*identity, is_first_rank, *end) for end in codes)
        if not is_first_rank:
            continue
        for scope in resource_metrics.scope_metrics:
            (of_sidecars if scope.scope.name == SIDECAR_SCOPE else apart).add(identity)
        align(resource_metrics.scope_metrics)
        step_ids: dict[int, StepId] = {}
        for metric in metrics:
            if metric.name == SETTING_NAME:
                taken = list(settings_in(metric, *identity))
                settings.extend(setting for setting in taken if setting is not None)
                if None in taken:
                    rejected += taken.count(None)
                    _note(reasons, f"a setting needs a name and a value of {MAX_TEXT} characters at most, as JSON")
                continue
            if metric.name != rows.STEP.name and rank_name(metric.name) is None:
                continue
            for refusal in _take(metric, identity, step_ids, points):
                rejected += 1
                _note(reasons, refusal)
    stamped_apart = frozenset(apart - of_sidecars)
    return Decoded(tuple(points), rejected, "; ".join(reasons), tuple(ends), tuple(settings), stamped_apart)


def _note(reasons: dict[str, None], error: _RefusedError | str) -> None:
    """Note why something is refused, for its sender."""
    if len(reasons) < MOST_REASONS:
        reasons[str(error)] = None


def _within_bounds(request: ExportMetricsServiceRequest) -> tuple[Sequence[ResourceMetrics], int]:
    """Return the resources of a request without the largest, so that MAX_ITEMS are left, and what these have.

    A collector's request is of several senders, and one with too much is not to cost the others theirs.
    """
    parts = request.resource_metrics
    items = len(parts)
    if items >= MAX_ITEMS:  # of empty ones, whose number alone is too much, a true one would be the largest
        return (), items
    sizes: list[int] = []
    for part in parts:
        sizes.append(_size(part))
        items += sizes[-1]
        if items > _MOST_COUNTED:
            return (), items
    left_out = 0
    for index in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        if items <= MAX_ITEMS:
            break
        left_out, items, sizes[index] = left_out + sizes[index], items - sizes[index], -1
    return [part for part, size in zip(parts, sizes, strict=True) if size >= 0] if left_out else parts, left_out


def _size(resource_metrics: ResourceMetrics) -> int:
    """Return the number of scopes, metrics and points, before any of them is read; of too many not all are counted."""
    size = 0
    for length in _lengths(resource_metrics):
        size += length
        if size > MAX_ITEMS:
            break
    return size


def _lengths(resource_metrics: ResourceMetrics) -> Iterator[int]:
    """Yield the length of each list, before any of its parts is read."""
    yield len(resource_metrics.scope_metrics)
    for scope_metrics in resource_metrics.scope_metrics:
        yield len(scope_metrics.metrics)
        for metric in scope_metrics.metrics:
            yield len(data_points(metric))


def _identity(attributes: Sequence[KeyValue]) -> tuple[str, int] | None:
    """Return run id and attempt of a resource, None for one that is not for wandb."""
    run_id = _attribute(attributes, RUN_ID_ATTRIBUTE)
    if run_id is None:
        return None
    if not isinstance(run_id, str) or not 0 < len(run_id) <= MAX_TEXT:
        raise _RefusedError(f"{RUN_ID_ATTRIBUTE} must be a string of 1 to {MAX_TEXT} characters")
    attempt = _number(_attribute(attributes, ATTEMPT_ATTRIBUTE))
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not 0 <= attempt <= _INT64_MAX:
        raise _RefusedError(f"{ATTEMPT_ATTRIBUTE} must be an integer that is not negative, and below 2^63")
    return run_id, attempt


def _is_first_rank(attributes: Sequence[KeyValue]) -> bool:
    """Tell whether a resource is rank 0's, which has the cluster's values too, or names no rank.

    A process that is a job of its own has the number that its launcher gives it, and is the only rank of its run.
    """
    alone = _number(_attribute(attributes, SIZE_ATTRIBUTE)) == 1
    return alone or _number(_attribute(attributes, RANK_ATTRIBUTE)) in (None, 0)


def _number(value: object) -> object:
    """Return a whole number as an int: `OTEL_RESOURCE_ATTRIBUTES` has text only, and some senders fractions only."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 20 else value


def _attribute(attributes: Sequence[KeyValue], key: str) -> object:
    if len(attributes) > MAX_ATTRIBUTES:
        raise _RefusedError(f"a resource or point has more than {MAX_ATTRIBUTES} attributes")
    for attribute in attributes:
        if attribute.key == key:
            kind = attribute.value.WhichOneof("value")
            return getattr(attribute.value, kind) if kind else None
    return None


def _take(
    metric: Metric, identity: tuple[str, int], step_ids: dict[int, StepId], points: list[Point]
) -> Iterator[_RefusedError]:
    """Append a metric's points to `points`, and yield why others are refused.

    A backlog has millions of points: what is the same for all of a metric's, and for all of a step's, is made once.
    """
    name, kind = metric.name, _kind(metric)
    if kind is None:
        error = _RefusedError(f"the sum {name[:64]!r} is neither cumulative nor delta; set its aggregation temporality")
        yield from repeat(error, len(metric.sum.data_points))
        return
    is_step = name == rows.STEP.name
    for point in data_points(metric):
        try:
            attributes = point.attributes
            modality = _modality(name, attributes) if attributes or len(name) > MAX_TEXT else ""
            time_ns = point.time_unix_nano
            if time_ns not in step_ids:
                step_ids[time_ns] = _step_id(name, identity, time_ns)
            value, given = _value(point, kind)
            if is_step:
                _check_step(name, value, given)
        except _RefusedError as error:
            yield error
        else:
            points.append(_make_point((step_ids[time_ns], name, modality, given, value)))


def _modality(name: str, attributes: Sequence[KeyValue]) -> str:
    modality = _attribute(attributes, MODALITY_ATTRIBUTE)
    modality = "" if modality is None else modality
    if not isinstance(modality, str):
        raise _RefusedError(f"{MODALITY_ATTRIBUTE} of {name[:64]!r} must be a string")
    if len(name) > MAX_TEXT or len(modality) > MAX_TEXT:
        raise _RefusedError(f"a name or attribute of {name[:64]!r} is longer than {MAX_TEXT} characters")
    return modality


def _step_id(name: str, identity: tuple[str, int], time_ns: int) -> StepId:
    if not 0 < time_ns <= _INT64_MAX:
        raise _RefusedError(f"{name!r} has no usable time_unix_nano, got {time_ns}")
    return StepId(*identity, time_ns)


def _check_step(name: str, value: float, given: Kind) -> None:
    if given not in (Kind.VALUE, Kind.DELTA) or not 0 <= value <= _INT64_MAX or value != int(value):
        raise _RefusedError(f"{name!r} must be a gauge with a whole number, got {value}")


def _kind(metric: Metric) -> Kind | None:
    """Return the kind of a metric's values; None for a sum that does not say what it adds up."""
    data = metric.WhichOneof("data")
    if data == "gauge":
        return Kind.VALUE
    if data != "sum":
        return Kind.PRESENT
    match metric.sum.aggregation_temporality:
        case AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE:
            return Kind.CUMULATIVE if metric.sum.is_monotonic else Kind.VALUE
        case AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA:
            return Kind.DELTA
    return None


def _value(point: NumberDataPoint, kind: Kind) -> tuple[float, Kind]:
    """Return the value and the kind of a point: PRESENT where it has no value."""
    if kind is Kind.PRESENT or point.flags & _NO_VALUE:
        return 0, Kind.PRESENT
    # What is not 0 is there; to ask which of them is costs as much again.
    if value := point.as_double or point.as_int:
        return value, kind
    field = point.WhichOneof("value")
    return (getattr(point, field), kind) if field else (0, Kind.PRESENT)
