"""What a ring's records mean, as its header carries it: metrics, modalities, and who wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from otel_train.catalogue import BY_NAME, Layout, Metric, Reduction
from otel_train.exceptions import OtelTrainError, RingError


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


@dataclass(frozen=True, slots=True)
class Schema:
    """The metrics that a job measures, in order, and its modalities."""

    metrics: tuple[Metric, ...]
    modalities: tuple[str, ...] = ()

    def layout(self) -> Layout:
        """Return the places of the measures in a record."""
        return Layout(self.metrics, self.modalities)

    def describe(self) -> list[list[str]]:
        """Return one row a metric: name, unit, instrument, reduction."""
        return [[metric.name, metric.unit, str(metric.instrument), str(metric.reduction)] for metric in self.metrics]


def dump_schema(schema: Schema, identity: Identity) -> bytes:
    """Return the JSON that stands in a ring's header."""
    return json.dumps(
        {"identity": asdict(identity), "modalities": schema.modalities, "metrics": schema.describe()}
    ).encode()


def load_schema(data: bytes, path: str) -> tuple[Schema, Identity]:
    """Read what `dump_schema` wrote.

    Raises:
        RingError: It is not that, or names a catalogue metric with another reduction (another release wrote it).
    """
    try:
        content: dict[str, Any] = json.loads(data)
        identity = Identity(**content["identity"])
        schema = Schema(tuple(map(_metric, content["metrics"])), tuple(str(name) for name in content["modalities"]))
    except (ValueError, TypeError, KeyError, RecursionError, OtelTrainError) as error:
        raise RingError(f"{path} is damaged: its schema can't be read ({error}); move it away") from error
    for field in fields(Identity):
        kind = str if field.name in ("run_id", "host", "service_name") else int
        if type(getattr(identity, field.name)) is not kind:
            raise RingError(f"{path} is damaged: {field.name} is {getattr(identity, field.name)!r}; move it away")
    return schema, identity


def _metric(row: Sequence[str]) -> Metric:
    name, unit, instrument, reduction = row
    known = BY_NAME.get(name)
    if known is None:
        return Metric(name, Reduction(reduction), unit=unit)
    if (known.unit, str(known.instrument), str(known.reduction)) != (unit, instrument, reduction):
        raise ValueError(f"{name} has another unit, instrument or reduction than in this release")
    return known
