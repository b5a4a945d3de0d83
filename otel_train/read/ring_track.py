"""The values by step of one ring's records, each key's read from the ring when it is asked for."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import partial
from operator import lt
from typing import Any

from otel_train.catalogue import computations
from otel_train.read.column_values import series_values
from otel_train.read.gathered_values import GatheredValues
from otel_train.read.history import Track
from otel_train.ring import Record
from otel_train.ring.columns import Heads, RingColumns

_GLANCE = 256
"""Records that are looked at first to see whether a key has values."""
_AT_ONCE = 1 << 15
"""Records of which a value is computed together: what it is computed from takes no memory to speak of."""
_Late = dict[str, dict[int, float]]
"""Late values by key and step."""


class RingValues(GatheredValues):
    """The columns of one kind of a ring's records by wandb key, float64 [steps] each.

    Args:
        columns: The ring.
        steps: The steps.
        sequences: Sequence number of each step's record; negative for a step that has late values only.
        late: Values that the schema has no room for, or that were logged beside the steps.
        with_ranks: Whether these are the cluster's, which name the ranks of the peaks.
    """

    def __init__(
        self, columns: RingColumns, steps: array[int], sequences: array[int], late: _Late, *, with_ranks: bool
    ) -> None:
        super().__init__()
        self._columns, self._with_ranks = columns, with_ranks
        self._steps, self._late = steps, late
        absent = [at for at, sequence in enumerate(sequences) if sequence < 0]
        self._absent = [at - number for number, at in enumerate(absent)]
        """Indices among the records before which a step without one stands."""
        self._sequences = sequences
        if self._absent:
            self._sequences = array("q", [sequence for sequence in sequences if sequence >= 0])
        self._layout = columns.reader.base_layout
        self._indices = {key: index for index, key in enumerate(self._layout.keys) if key is not None}
        self._keys: dict[str, None] | None = None

    def __delitem__(self, key: str) -> None:
        del self.names()[key]
        self.given[key] = array("d", [math.nan]) * len(self._steps)

    def names(self) -> dict[str, None]:
        """Return the keys of which any record has a value."""
        if self._keys is None:
            own = [key for key, index in self._indices.items() if self._has_values(index)]
            self._keys = dict.fromkeys([*own, *self._late])
        return self._keys

    def _has_values(self, index: int) -> bool:
        if not self._sequences or self._layout.computation(index).func is computations.slice_of:
            return False
        for sequences in (self._sequences[-_GLANCE:], self._sequences):
            if not all(map(math.isnan, self._values(index, sequences))):
                return True
        return False

    def newest(self, key: str) -> float:
        """Return the newest value of a key, NaN where there is none."""
        index = self._indices.get(key)
        if index is not None and not (self._absent or key in self._late or key in self.given or key in self.kept):
            for value in reversed(self._values(index, self._sequences[-_GLANCE:])):
                if not math.isnan(value):
                    return value
        return super().newest(key)

    def gather(self, key: str) -> array[float]:
        """Return the column of a key, NaN for each step without a value.

        Raises:
            KeyError: There is no such key.
        """
        index = self._indices.get(key)
        if index is None and key not in self._late:
            raise KeyError(key)
        if index is None:
            column = array("d", [math.nan]) * len(self._steps)
        else:
            column = self._values(index, self._sequences)
            if self._absent:
                column = _spread(column, self._absent, [math.nan] * len(self._absent))
        for step, value in self._late.get(key, {}).items():
            column[bisect_left(self._steps, step)] = value
        return column

    def _values(self, index: int, sequences: array[int]) -> array[float]:
        column = array("d", [math.nan]) * len(sequences)
        try:
            for begin in range(0, len(sequences), _AT_ONCE):
                part = slice(begin, begin + _AT_ONCE)
                read = partial(self._columns.columns, sequences[part])
                column[part] = series_values(self._layout, index, read, with_ranks=self._with_ranks)
        except (ArithmeticError, ValueError):  # damaged values must cost themselves, not who reads them
            return array("d", [math.nan]) * len(sequences)
        return column


def ring_track(columns: RingColumns, heads: Heads, late: Iterable[Record], *, with_ranks: bool) -> Track | None:
    """Return the values of one kind of a ring's records; None where their steps don't grow.

    Args:
        columns: The ring.
        heads: Heads of the records.
        late: Records of that kind that have late values, in the order of the ring.
        with_ranks: Whether they are the cluster's.
    """
    steps, times, sequences = heads.steps, heads.times_ns, heads.sequences
    if not all(map(lt, steps, steps[1:])):
        return None
    values: _Late = {}
    logged = []
    in_schema = set(columns.reader.base_layout.keys)
    for record in late:
        if record.logged:
            logged.append(record)
            continue
        for key, value in record.by_key().items():
            if key not in in_schema:
                values.setdefault(key, {})[record.step] = value
    merged: dict[int, int] = {}
    for record in logged:
        at = bisect_left(steps, record.step)
        if at == len(steps) or steps[at] != record.step:
            merged.setdefault(record.step, record.time_ns)
        for key, value in record.by_key().items():
            values.setdefault(key, {})[record.step] = value
    if merged:
        steps, times, sequences = _with_merged(steps, times, sequences, sorted(merged.items()))
    track = Track(steps, times, RingValues(columns, steps, sequences, values, with_ranks=with_ranks))
    track.merged.update(merged)
    return track


def _with_merged(
    steps: array[int], times: array[int], sequences: array[int], merged: Sequence[tuple[int, int]]
) -> tuple[array[int], array[int], array[int]]:
    """Return steps, times and sequence numbers with steps that have logged values only, in their order."""
    ats = [bisect_left(steps, step) for step, _ in merged]
    stamps: list[int] = []
    for at, (_, time_ns) in zip(ats, merged, strict=True):
        stamp = min([time_ns, *times[at : at + 1]])
        stamps.append(max([stamp, *stamps[-1:], *times[max(0, at - 1) : at]]))
    return (
        _spread(steps, ats, [step for step, _ in merged]),
        _spread(times, ats, stamps),
        _spread(sequences, ats, [-1] * len(ats)),
    )


def _spread(column: array[Any], ats: Sequence[int], values: Sequence[float]) -> array[Any]:
    """Return a column with values inserted before some of its indices, which don't fall."""
    out: array[Any] = array(column.typecode)
    begin = 0
    for at, value in zip(ats, values, strict=True):
        out.extend(column[begin:at])
        out.append(value)
        begin = at
    out.extend(column[begin:])
    return out
