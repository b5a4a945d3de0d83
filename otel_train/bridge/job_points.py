"""Decode the points that tell of a run's job, not of one step: its settings, and how a rank's session ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_train.catalogue import MAX_TEXT, MOST_NESTED, SETTING_VALUE, cluster_name, rows
from otel_train.json_size import json_size

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

SETTING_NAME = cluster_name(rows.SETTING.name)
_INT64_MAX = 2**63 - 1
MOST_ATTRIBUTES = 128
"""Attributes of a point among which a setting's are looked for."""


class SessionEnd(NamedTuple):
    """End of a rank's session."""

    run_id: str
    attempt: int
    is_first_rank: bool
    """Whether its values are the cluster's."""
    code: int
    """Exit code, 0 for a good end."""
    time_ns: int = 0
    """Time at which its sidecar said so."""


class Setting(NamedTuple):
    """One setting of a job."""

    run_id: str
    attempt: int
    name: str
    value: Any
    """Text, a number, a truth value, None, or a list or mapping of these."""


def exit_codes(metrics: Sequence[Metric]) -> Iterator[tuple[int, int]]:
    """Yield the exit codes of ranks' sessions, and when they were told; a session that goes on tells none."""
    for metric in metrics:
        if metric.name == rows.SESSION_FAILED.name and metric.WhichOneof("data") in ("gauge", "sum"):
            points = metric.gauge.data_points or metric.sum.data_points
            for point in points:
                field = point.WhichOneof("value")
                if field is not None and math.isfinite(value := getattr(point, field)):
                    code = int(value)
                    code = (128 - code if code < 0 else code) & 255 or int(bool(value))
                    yield code, min(point.time_unix_nano, _INT64_MAX)


def settings_in(metric: Metric, run_id: str, attempt: int) -> Iterator[Setting | None]:
    """Yield a setting for each point of a metric; None for one that breaks a rule."""
    for point in metric.gauge.data_points:
        values = {attribute.key: attribute.value for attribute in point.attributes[:MOST_ATTRIBUTES]}
        name = values[rows.SETTING.attribute].string_value if rows.SETTING.attribute in values else ""
        try:
            value = _plain(values.get(SETTING_VALUE))
        except ValueError:
            yield None
        else:
            yield Setting(run_id, attempt, name, value) if 0 < len(name) <= MAX_TEXT else None


def _plain(value: AnyValue | None, depth: int = 0) -> Any:
    """Return a setting's value.

    Raises:
        ValueError: It is none of a setting, or a list or mapping that is nested too deep or too large.
    """
    kind = value.WhichOneof("value") if value is not None else None
    if value is None or kind is None:
        return None
    plain = getattr(value, kind)
    if kind in ("array_value", "kvlist_value") and depth < MOST_NESTED and len(plain.values) <= MAX_TEXT:
        if kind == "array_value":
            nested: Any = [_plain(item, depth + 1) for item in plain.values]
        else:
            nested = {item.key: _plain(item.value, depth + 1) for item in plain.values}
        if depth or json_size(nested) <= MAX_TEXT:
            return nested
    if kind == "string_value" and len(plain) <= MAX_TEXT:
        return plain
    if kind in ("bool_value", "int_value") or (kind == "double_value" and math.isfinite(plain)):
        return plain
    raise ValueError
