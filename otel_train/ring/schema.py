"""The schema in a ring's header, which says what its records mean: metrics, modalities, and who wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from otel_train.catalogue import BY_NAME, BY_SOURCE, MAX_TEXT, MOST_BY_SOURCE, Instrument, Layout, Metric, Reduction
from otel_train.exceptions import OtelTrainError, RingError
from otel_train.ring.facts import Fact, usable_facts
from otel_train.ring.file_format import MAX_ATTRIBUTES

_LARGEST = 2**63 // 10**6
"""Bound of an identity's numbers: the attempt is sent in nanoseconds too, and OTLP's integers have 64 bits."""
_MOST_SHARED = 16
"""Schemas that are kept for the next ring; a directory has one, or one for each of a few attempts."""
_PLAIN = (Reduction.MEAN, Reduction.SUM, Reduction.MAX, Reduction.MIN, Reduction.NORM)
"""The reductions that a metric outside the catalogue can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which process of which attempt of which run the values come from."""

    run_id: str
    """The same for all ranks and attempts of a run."""
    attempt: int
    """The start of the job that rank 0 agreed on with the others, in milliseconds since the epoch."""
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    host: str = ""
    service_name: str = "otel_train"
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Attributes of the resource that the standard's variables give to the rank; the fields above override them."""


class Schema(NamedTuple):
    """The metrics that a job measures, in order, and its modalities."""

    metrics: tuple[Metric, ...]
    modalities: tuple[str, ...] = ()

    def layout(self) -> Layout:
        """Return the offsets of the measures in a record."""
        return Layout(self.metrics, self.modalities)

    @property
    def by_source(self) -> int:
        """How many series by source the metrics have that are not the catalogue's."""
        by_source = sum(bool(metric.attribute) for metric in self.metrics if metric.name not in BY_NAME)
        return by_source * len(self.modalities)

    def describe(self) -> list[list[str]]:
        """Return one row for each metric, which all ranks must agree on.

        Each is its name, unit, instrument and reduction, and of a user's metric by source the attribute.
        """
        return [
            [metric.name, metric.unit, str(metric.instrument), str(metric.reduction)]
            + ([metric.attribute] if metric.attribute and metric.name not in BY_NAME else [])
            for metric in self.metrics
        ]


class _SharedSchema(Schema):
    """A schema with its layout: hundreds of rings have the same."""

    @cached_property
    def _made(self) -> Layout:
        return super().layout()

    def layout(self) -> Layout:
        """Return the offsets of the measures in a record, the same object at each call."""
        return self._made


def dump_schema(schema: Schema, identity: Identity, facts: Mapping[str, Fact]) -> bytes:
    """Return the JSON of a ring's header."""
    return json.dumps(
        {
            "identity": asdict(identity),
            "modalities": schema.modalities,
            "metrics": [
                row if metric.name in BY_NAME else [*row[:4], metric.description, *row[4:]]
                for row, metric in zip(schema.describe(), schema.metrics, strict=True)
            ],
            "facts": usable_facts(facts),
        }
    ).encode()


def load_schema(data: bytes, path: str) -> tuple[Schema, Identity, dict[str, Fact]]:
    """Read what `dump_schema` wrote.

    Raises:
        RingError: It is damaged, has a catalogue metric with another reduction (another release wrote it), or holds
            values that can't be sent.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        identity = _identity(content["identity"])
        facts = usable_facts(content.pop("facts", {}))
        if b"\\" in data or not data.isascii():
            json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair can be read, but not be sent
        schema = _shared_schema(tuple(map(tuple, content["metrics"])), tuple(content["modalities"]))
    except (ValueError, TypeError, KeyError, RecursionError, OtelTrainError) as error:
        raise RingError(f"{path} is damaged: its schema can't be read ({error!s:.200}); move it away") from error
    return schema, identity, facts


@lru_cache(_MOST_SHARED)
def _shared_schema(metrics: tuple[Sequence[str], ...], modalities: tuple[str, ...]) -> _SharedSchema:
    """Return the schema of some rows, the same object for those of the next ring."""
    return _few_by_source(_SharedSchema(tuple(map(_metric, metrics)), tuple(map(_modality, modalities))))


def dump_key(metric: Metric) -> bytes:
    """Return the JSON of a late key in a ring's table.

    Raises:
        RingError: It is not a mean, a norm or a sum of the user's own.
    """
    if not _can_be_late(metric):
        raise RingError(
            f"key {metric.name!r:.80} can't be added to a ring that is written: it must be a mean, a norm or a sum"
        )
    (row,) = Schema((metric,)).describe()
    return json.dumps(row).encode()


def load_key(data: bytes, path: str) -> Metric:
    """Read what `dump_key` wrote.

    Raises:
        RingError: It is damaged.
    """
    try:
        row = json.loads(data)
        json.dumps(row, ensure_ascii=False).encode()
        metric = _metric(row)
        dump_key(metric)
    except (ValueError, TypeError, KeyError, RecursionError, OtelTrainError) as error:
        raise RingError(f"{path} is damaged: a key can't be read ({error!s:.200}); move it away") from error
    return metric


def _can_be_late(metric: Metric) -> bool:
    joins = metric.reduction in (Reduction.MEAN, Reduction.NORM, Reduction.SUM)
    plain = metric.instrument is Instrument.GAUGE and not metric.attribute
    return joins and plain and metric.name not in BY_NAME


def _few_by_source(schema: _SharedSchema) -> _SharedSchema:
    """Return the schema; a few bytes of JSON must not make millions of series."""
    if schema.by_source > MOST_BY_SOURCE:
        raise ValueError(f"it has {schema.by_source} series by source, more than {MOST_BY_SOURCE}")
    return schema


def _identity(content: dict[str, Any]) -> Identity:
    identity = Identity(**content)
    for name in (attribute.name for attribute in fields(Identity)):
        value = getattr(identity, name)
        if name in ("run_id", "host", "service_name"):
            fits = isinstance(value, str)
        elif name == "attributes":
            fits = isinstance(value, dict) and len(value) <= MAX_ATTRIBUTES + 2 and all(map(_short, value.items()))
        else:
            fits = type(value) is int and 0 <= value <= _LARGEST
        if not fits:
            raise ValueError(f"{name} is {value!r:.80}")
    return identity


def _short(pair: tuple[str, Any]) -> bool:
    return all(isinstance(text, str) and len(text) <= MAX_TEXT for text in pair)


def _modality(name: Any) -> str:
    if not isinstance(name, str) or len(name) > MAX_TEXT:
        raise ValueError(f"a modality is {name!r:.80}")
    return name


def _metric(row: Sequence[Any]) -> Metric:
    if not all(isinstance(part, str) for part in row):
        raise ValueError(f"a metric is {row!r:.80}")
    name, unit, instrument, reduction, *more = row
    own = BY_NAME.get(name)
    if own is None:
        metric = Metric(
            name,
            Reduction(reduction),
            Instrument(instrument),
            unit=unit,
            description="".join(more[:1]),
            attribute="".join(more[1:2]),
        )
        if metric.reduction not in _PLAIN:
            raise ValueError(f"{name} is not in the catalogue and has the reduction {reduction}")
        if metric.instrument not in (Instrument.GAUGE, Instrument.COUNTER):
            raise ValueError(f"{name} is not in the catalogue and has the instrument {instrument}")
        if metric.attribute and (metric.attribute, metric.reduction) != (BY_SOURCE, Reduction.MEAN):
            raise ValueError(f"{name} is a {reduction} by {metric.attribute:.80}")
        return metric
    if (own.unit, str(own.instrument), str(own.reduction)) != (unit, instrument, reduction):
        raise ValueError(f"{name} has another unit, instrument or reduction than in this release")
    return own
