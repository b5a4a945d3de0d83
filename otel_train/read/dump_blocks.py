"""The records of a ring in blocks of columns, in the order in which they were written."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_train.catalogue import computations
from otel_train.read.column_values import series_values
from otel_train.ring import Identity, Kind, Record, RingReader, Stamp
from otel_train.ring.columns import Heads, RingColumns

RECORDS = 2048
"""Records that a block is made of, at most."""
LOGGED_SUFFIX = "_logged"
"""End of the kind of a row with values that were logged beside the steps."""

Column = list[float | None]
"""A value's column; None where nobody measured it."""


@dataclass(slots=True)
class Block:
    """Some rows of one ring, a column each; all as long."""

    identity: Identity
    kinds: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    values: list[Column] = field(default_factory=list)
    """A column for each key that was asked for."""


class _Part(NamedTuple):
    """Rows of one kind before they are sorted in."""

    sequences: Sequence[int]
    kind: str
    steps: Sequence[int]
    times_ns: Sequence[int]
    values: Sequence[Sequence[float | None]]


class RingBlocks:
    """One ring's records as blocks.

    Args:
        reader: The ring.
        keys: The wandb keys whose values are read.
        kind: The kind of records that are read; None for both.
        is_before: Whether a record comes before the part of the run that is read.
    """

    def __init__(
        self,
        reader: RingReader,
        keys: Sequence[str],
        kind: Kind | None,
        is_before: Callable[[Stamp | Record], bool] | None,
    ) -> None:
        self._reader, self._keys, self._kind, self._is_before = reader, keys, kind, is_before
        self._columns = RingColumns(reader)
        self._layout = reader.base_layout
        self._indices = {key: index for index, key in enumerate(self._layout.keys) if key is not None}
        self._width = reader.geometry.values
        self.torn = 0
        """Records that were torn, or overwritten before they were read."""

    def between(self, begin: int, end: int) -> Iterator[Block]:
        """Yield the selected records with the sequence numbers [begin, end) that are whole."""
        for first in range(begin, end, RECORDS):
            block = self._block(first, min(end, first + RECORDS))
            if block.steps:
                yield block

    def single(self, sequence: int) -> Block:
        """Return the rows of one record."""
        return self._joined(self._slow([sequence]))

    def _block(self, begin: int, end: int) -> Block:
        geometry = self._reader.geometry
        heads = self._columns.heads(begin, end)
        of_kinds = [
            (kind, of_kind)
            for kind, of_kind in ((Kind.RANK, heads.rank), (Kind.CLUSTER, heads.cluster))
            if self._kind in (None, kind)
        ]
        slow = set(heads.late)
        try:
            parts = [self._part(kind, self._selected(kind, of_kind, slow)) for kind, of_kind in of_kinds]
        except (ArithmeticError, ValueError):  # damaged values must cost themselves
            parts, slow = [], {*heads.rank.sequences, *heads.cluster.sequences, *slow}
        # A running job may have written over some meanwhile, with the parts of the record that it writes now.
        if self._reader.progress.written - geometry.records + geometry.most_parts + 1 > begin:
            parts, slow = [], set(range(begin, end))
        else:
            self.torn += end - begin - heads.whole
        return self._joined([*parts, *self._slow(sorted(slow))])

    def _selected(self, kind: Kind, heads: Heads, without: set[int]) -> Heads:
        """Return the heads of the records that belong to the part, without some."""
        before = self._is_before
        if before is None and not without:
            return heads
        chosen = Heads()
        for sequence, step, time_ns in zip(heads.sequences, heads.steps, heads.times_ns, strict=True):
            if sequence not in without and not (before and before(Stamp(step, time_ns, kind))):
                chosen.sequences.append(sequence)
                chosen.steps.append(step)
                chosen.times_ns.append(time_ns)
        return chosen

    def _part(self, kind: Kind, heads: Heads) -> _Part:
        """Return the rows of records without late values."""
        read = self._columns.columns(heads.sequences, range(self._width)) if heads.sequences else []
        values = [self._values(key, kind, read) for key in self._keys] if read else [[] for _ in self._keys]
        return _Part(heads.sequences, kind.name.lower(), heads.steps, heads.times_ns, values)

    def _values(self, key: str, kind: Kind, read: Sequence[array[float]]) -> Sequence[float | None]:
        index, records = self._indices.get(key), len(read[0])
        with_ranks = kind is Kind.CLUSTER
        if index is None:
            return [None] * records
        function = self._layout.computation(index)
        if function.func is computations.slice_of or (function.func is computations.peak_rank and not with_ranks):
            return [None] * records
        # The core computes in place: other keys are made of the same columns.
        column = series_values(self._layout, index, lambda span: [read[at][:] for at in span], with_ranks=with_ranks)
        if not math.isnan(sum(column)):
            return column
        # A NaN is no value, or the value that was logged.
        return [
            function(*self._vectors([of[at] for of in read], with_ranks=with_ranks)) if math.isnan(value) else value
            for at, value in enumerate(column)
        ]

    def _vectors(self, values: Sequence[float], *, with_ranks: bool) -> tuple[Sequence[float], ...]:
        sums, peaks, ranks = self._layout.split(values)
        return sums, peaks, ranks if with_ranks else ()

    def _slow(self, sequences: Sequence[int]) -> Iterator[_Part]:
        """Yield the rows of records that are read one by one."""
        for sequence in sequences:
            records, _, lost = self._reader.read(sequence, 1)
            self.torn += lost > 0
            for record in records:
                # That of a part is the record that follows, which comes itself.
                selected = record.sequence == sequence and self._kind in (None, record.kind)
                if selected and not (self._is_before and self._is_before(record)):
                    yield self._single_row(record)

    def _single_row(self, record: Record) -> _Part:
        values = record.by_key()
        kind = record.kind.name.lower() + LOGGED_SUFFIX * record.logged
        row = [[values.get(key)] for key in self._keys]
        return _Part([record.sequence], kind, [record.step], [record.time_ns], row)

    def _joined(self, parts: Iterator[_Part] | Sequence[_Part]) -> Block:
        """Return the rows of all parts, in the order in which they were written."""
        parts = [part for part in parts if part.sequences]
        sequences = [sequence for part in parts for sequence in part.sequences]
        block = Block(
            self._reader.identity,
            [part.kind for part in parts for _ in part.sequences],
            [step for part in parts for step in part.steps],
            [time_ns for part in parts for time_ns in part.times_ns],
        )
        block.values = [[value for part in parts for value in part.values[at]] for at in range(len(self._keys))]
        if len(parts) > 1:
            order = sorted(range(len(sequences)), key=sequences.__getitem__)
            block.kinds = [block.kinds[at] for at in order]
            block.steps = [block.steps[at] for at in order]
            block.times_ns = [block.times_ns[at] for at in order]
            block.values = [[column[at] for at in order] for column in block.values]
        return block
