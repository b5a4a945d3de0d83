"""A trainer's own record of what its ranks measured, and the cluster's values that follow from it."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from otel_train.ring import Kind, RingReader, ring_files

Means = dict[int, dict[str, float]]
"""Weighted mean by step and key."""


class RankRecord:
    """What one rank has measured, written down beside its telemetry.

    Args:
        folder: Of the case.
        rank: This one.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / f"record{rank}.json"
        self._values: list[tuple[int, str, float, float]] = []

    def note(self, step: int, values: Mapping[str, Any], weight: float = 1.0) -> None:
        """Note values that belong to a step."""
        self._values += [(step, key, float(value), weight) for key, value in values.items()]

    def write(self) -> None:
        """Write the record into its file."""
        self._path.write_text(json.dumps(self._values))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()


def record_means(folder: Path, ranks: int) -> Means:
    """Return the means over the ranks' records, each value with its weight."""
    pairs: dict[int, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for rank in range(ranks):
        for step, key, value, weight in json.loads((folder / f"record{rank}.json").read_text()):
            pairs[step][key].append((value, weight))
    return {
        step: {key: sum(v * w for v, w in given) / sum(w for _, w in given) for key, given in keys.items()}
        for step, keys in sorted(pairs.items())
    }


def sessions(folder: Path) -> list[RingReader]:
    """Return the rings of rank 0, in the order of its sessions."""
    readers = [RingReader(path) for path in ring_files(folder / "rings")]
    return sorted((one for one in readers if one.identity.rank == 0), key=lambda one: one.identity.attempt)


def recorded_means(readers: Iterable[RingReader]) -> Means:
    """Return the cluster's values by step as rings have them; a step that a later session ends again is that one's."""
    values: Means = {}
    for reader in readers:
        own: Means = {}
        records = [record for record in reader.read(0, sys.maxsize)[0] if record.kind is Kind.CLUSTER]
        for record in records:
            own.setdefault(record.step, {}).update(record.layout.by_key(*record.layout.split(record.values)))
        ended = {record.step for record in records if not record.logged}
        for step, row in own.items():
            values[step] = row if step in ended else values.get(step, {}) | row
    return dict(sorted(values.items()))
