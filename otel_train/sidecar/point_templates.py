"""Make a point's bytes by writing its time and value into a template, which protobuf's library made.

The SDK's data classes and encoder, or a message for each point, take several times as much of a processor: eight rings
at 100 steps a second were a third of a core, which is the training job's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from struct import Struct, error, unpack
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from otel_train.catalogue import BY_NAME, Instrument
from otel_train.catalogue import Metric as Row

Pack = Callable[[int, Any], bytes]
"""Makes a point's bytes, as in its metric's data, from its time and its value, whatever number that is."""

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_MOST_IN_BUCKET = 2**53
"""Bound of a bucket's count, so that the sum of a histogram's counts fits too."""
_TIME, _VALUE = b"\xfa" * 8, b"\xfb" * 8
"""Bytes of a template's time and value. Neither is UTF-8, so no name or attribute has them."""


def number(*, start_ns: int = 0, integer: bool = False, attributes: Sequence[tuple[str, str]] = ()) -> Pack:
    """Return a function that makes the points of a gauge or a sum.

    Args:
        start_ns: Beginning of a cumulative sum.
        integer: Whether values are whole numbers.
        attributes: Attributes of each point.
    """
    point = NumberDataPoint(
        start_time_unix_nano=start_ns,
        time_unix_nano=_of(_TIME, "Q"),
        attributes=[KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes],
    )
    if integer:
        point.as_int = _of(_VALUE, "q")
    else:
        point.as_double = _of(_VALUE, "d")
    # Gauges and sums both have their points in the same field.
    head, _, rest = Sum(data_points=[point]).SerializeToString().partition(_TIME)
    middle, _, tail = rest.partition(_VALUE)
    pack = Struct(f"<{len(head)}sQ{len(middle)}s{'q' if integer else 'd'}{len(tail)}s").pack
    if not integer:
        return lambda time_ns, value: pack(head, time_ns, middle, value, tail)

    def pack_whole(time_ns: int, value: float) -> bytes:
        try:
            return pack(head, time_ns, middle, int(value), tail)
        except (OverflowError, ValueError, error):
            return pack(head, time_ns, middle, _nearest(value, -(2**63), 2**63 - 1), tail)

    return pack_whole


def _nearest(value: float, low: int, high: int) -> int:
    """Return the nearest number that a field can hold: a value that does not fit must not keep the others back."""
    if math.isnan(value):
        return 0
    return max(low, min(high, int(max(float(low), min(float(high), value)))))


def _of(pattern: bytes, kind: str) -> Any:
    """Return the number with these bytes in the protocol's fields of fixed size."""
    return unpack(f"<{kind}", pattern)[0]


def histogram(bounds: Sequence[float], *, start_ns: int) -> Pack:
    """Return a function that makes the points of a cumulative histogram from the counts of all buckets and the sum."""
    data = Histogram(data_points=[HistogramDataPoint(start_time_unix_nano=start_ns, explicit_bounds=bounds)])
    (point,) = data.data_points

    def pack(time_ns: int, value: Sequence[float]) -> bytes:
        try:
            fill([int(count) for count in value[:-1]])
        except (OverflowError, ValueError):
            fill([_nearest(count, 0, _MOST_IN_BUCKET) for count in value[:-1]])
        point.time_unix_nano, point.sum = time_ns, value[-1]
        return bytes(data.SerializeToString())

    def fill(counts: list[int]) -> None:
        point.count = sum(counts)
        del point.bucket_counts[:]
        point.bucket_counts.extend(counts)

    return pack


class Series:
    """One series, as it is sent.

    Args:
        name: The name of its metric.
        row: Its row in the catalogue.
        instrument: The instrument that it is sent as.
        start_ns: Beginning of its counts.
        integer: Whether a gauge has whole numbers.
        attribute: Its attribute's value, where the row has a series for each.
    """

    __slots__ = ("key", "metric", "pack")

    def __init__(
        self, name: str, row: Row, instrument: Instrument, start_ns: int, *, integer: bool = False, attribute: str = ""
    ) -> None:
        self.metric = Metric(name=name, description=row.description, unit=row.unit)
        """Its metric without a point."""
        attributes = [(row.attribute, attribute)] if attribute else []
        if instrument is Instrument.HISTOGRAM:
            field = "histogram"
            self.metric.histogram.aggregation_temporality = _CUMULATIVE
            self.pack = histogram(row.bounds, start_ns=start_ns)
        elif instrument is Instrument.COUNTER:
            field = "sum"
            self.metric.sum.aggregation_temporality = _CUMULATIVE
            self.metric.sum.is_monotonic = True
            # What a user counts may have a fraction: seconds, or 10**12 operations.
            self.pack = number(start_ns=start_ns, integer=row.name in BY_NAME, attributes=attributes)
        else:
            field = "gauge"
            self.pack = number(integer=integer, attributes=attributes)
        self.key = name, field
        """Key of its metric: one name with two kinds of data is two metrics."""
