"""Make the points of a job's settings, as wandb shows them as a run's config: one for each, from rank 0's ring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint, Sum

from otel_train.catalogue import SETTING_VALUE, cluster_name, rows
from otel_train.host_clock import CLOCK_FACTS
from otel_train.ring import Fact, Identity

NAME = cluster_name(rows.SETTING.name)


def settings_of(identity: Identity, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return a job's settings as its first rank has them; nothing for other ranks.

    Args:
        identity: The rank's.
        facts: Its ring's.
    """
    if identity.rank and identity.world_size > 1:
        return {}
    chosen = {name: value for name, value in facts.items() if name not in CLOCK_FACTS}
    return {"job.world_size": identity.world_size, "job.attempt": identity.attempt, **chosen}


def setting_points(settings: Mapping[str, Fact], time_ns: int) -> Iterator[bytes]:
    """Yield the points, encoded as in their metric's data.

    Args:
        settings: By name.
        time_ns: Their time stamp.
    """
    for name, value in settings.items():
        with contextlib.suppress(ValueError, UnicodeError):  # a whole number beyond OTLP's; half a surrogate pair
            attributes = [
                KeyValue(key=rows.SETTING.attribute, value=AnyValue(string_value=name)),
                KeyValue(key=SETTING_VALUE, value=any_value(value)),
            ]
            point = NumberDataPoint(time_unix_nano=time_ns, as_int=1, attributes=attributes)
            yield Sum(data_points=[point]).SerializeToString()


def any_value(value: Fact) -> AnyValue:
    """Return a setting's value as OTLP has it.

    Args:
        value: None is an empty value.

    Raises:
        ValueError: A number is beyond OTLP's, or a text is no Unicode.
    """
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
        case dict():
            pairs = [KeyValue(key=name, value=any_value(item)) for name, item in value.items()]
            return AnyValue(kvlist_value=KeyValueList(values=pairs))
    return AnyValue(string_value=value)
