"""The records of a ring in blocks of columns, in the order in which they were written."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_train.catalogue import computations
from otel_train.how_far import tell
from otel_train.native import core
from otel_train.read.column_values import series_values
from otel_train.ring import Identity, Kind, Record, RingReader, Stamp
from otel_train.ring.columns import Heads, RingColumns

RECORDS = 2048
"""Records that a block is made of, at most."""
AHEAD = 64
"""Records that a running job may write while a block is read: so many more are read one by one near its end."""
LOGGED_SUFFIX = "_logged"
"""End of the kind of a row with values that were logged beside the steps."""

KINDS = tuple(kind + suffix for suffix in ("", LOGGED_SUFFIX) for kind in ("rank", "cluster"))
"""The kinds of rows."""


@dataclass(slots=True)
class Block:
    """Some rows of one ring, a column each, and in which order they were written."""

    identity: Identity
    order: array[int] = field(default_factory=lambda: array("q"))
    """The rows' indices in the columns, in the order in which they were written; int64 [rows]."""
    kinds: bytearray = field(default_factory=bytearray)
    """Indices in `KINDS` [rows]."""
    steps: array[int] = field(default_factory=lambda: array("q"))
    """int64 [rows]."""
    times_ns: array[int] = field(default_factory=lambda: array("q"))
    """int64 [rows]."""
    values: array[float] = field(default_factory=lambda: array("d"))
    """The values of the keys that were asked for, a key after the other; float64 [keys * rows]."""
    present: bytearray = field(default_factory=bytearray)
    """1 for each of `values` that was measured, and 0 for others [keys * rows]."""

    def column(self, key: int) -> array[float]:
        """Return the values of one key; float64 [rows]."""
        rows = len(self.steps)
        return self.values[key * rows : (key + 1) * rows]

    def measured(self, key: int) -> list[float | None]:
        """Return the values of one key, None where nobody measured it."""
        rows = len(self.steps)
        present = self.present[key * rows : (key + 1) * rows]
        return [value if known else None for value, known in zip(self.column(key), present, strict=True)]

    def has_all(self, key: int) -> bool:
        """Tell whether each row has a value of a key."""
        rows = len(self.steps)
        return self.present.find(0, key * rows, (key + 1) * rows) < 0


class _Part(NamedTuple):
    """Rows before they are sorted in, and their values and whether there is one: a column for each key."""

    sequences: Sequence[int]
    kinds: bytes
    steps: array[int]
    times_ns: array[int]
    columns: Sequence[tuple[array[float], bytes]]


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
        first = begin
        while begin < end:
            tell("records of one", begin - first, end - first)
            stop = min(end, begin + RECORDS)
            block = self._block(begin, stop)
            if block is None:
                stop = min(stop, self._doubtful() + AHEAD)
                block = self._joined([self._slow(range(begin, stop))])
            if block.steps:
                yield block
            begin = stop
        tell("records of one", 1, 1)

    def _doubtful(self) -> int:
        """Return the sequence number of the first record that a running job is not about to write over."""
        geometry = self._reader.geometry  # the record that is written now comes with its parts
        return self._reader.progress.written - geometry.records + geometry.most_parts + 1

    def single(self, sequence: int) -> Block:
        """Return the rows of one record."""
        return self._joined([self._slow([sequence])])

    def _block(self, begin: int, end: int) -> Block | None:
        """Return the rows of some records; None where some of them may be overwritten, and are read one by one."""
        if self._doubtful() > begin:
            return None
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
        if self._doubtful() > begin:  # a running job has gone on meanwhile
            return None
        self.torn += end - begin - heads.whole
        return self._joined([*parts, self._slow(sorted(slow))])

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
        columns = [self._values(key, kind, read) for key in self._keys] if read else []
        kinds = bytes([KINDS.index(kind.name.lower())]) * len(heads.sequences)
        return _Part(heads.sequences, kinds, heads.steps, heads.times_ns, columns)

    def _values(self, key: str, kind: Kind, read: Sequence[array[float]]) -> tuple[array[float], bytes]:
        index, records = self._indices.get(key), len(read[0])
        with_ranks = kind is Kind.CLUSTER
        if index is None:
            return _column([None] * records)
        function = self._layout.computation(index)
        if function.func is computations.slice_of or (function.func is computations.peak_rank and not with_ranks):
            return _column([None] * records)
        # The core computes in place: other keys are made of the same columns.
        column = series_values(self._layout, index, lambda span: [read[at][:] for at in span], with_ranks=with_ranks)
        if not _has_nan(column):
            return column, b"\1" * records
        # A NaN is no value, or the value that was logged.
        return _column(
            [
                function(*self._vectors([of[at] for of in read], with_ranks=with_ranks)) if math.isnan(value) else value
                for at, value in enumerate(column)
            ]
        )

    def _vectors(self, values: Sequence[float], *, with_ranks: bool) -> tuple[Sequence[float], ...]:
        sums, peaks, ranks = self._layout.split(values)
        return sums, peaks, ranks if with_ranks else ()

    def _slow(self, sequences: Iterable[int]) -> _Part:
        """Return the rows of records that are read one by one."""
        selected: list[Record] = []
        for sequence in sequences:
            records, _, lost = self._reader.read(sequence, 1)
            self.torn += lost > 0
            # That of a part is the record that follows, which comes itself.
            selected += [record for record in records if record.sequence == sequence and self._is_selected(record)]
        rows = [record.by_key() for record in selected]
        return _Part(
            [record.sequence for record in selected],
            bytes(KINDS.index(record.kind.name.lower() + LOGGED_SUFFIX * record.logged) for record in selected),
            array("q", [record.step for record in selected]),
            array("q", [record.time_ns for record in selected]),
            [_column([row.get(key) for row in rows]) for key in self._keys],
        )

    def _is_selected(self, record: Record) -> bool:
        return self._kind in (None, record.kind) and not (self._is_before and self._is_before(record))

    def _joined(self, parts: Sequence[_Part]) -> Block:
        """Return the rows of all parts."""
        parts = [part for part in parts if part.sequences]
        sequences = [sequence for part in parts for sequence in part.sequences]
        order = range(len(sequences))
        block = Block(
            self._reader.identity,
            array("q", order if len(parts) == 1 else sorted(order, key=sequences.__getitem__)),
        )
        for part in parts:
            block.kinds += part.kinds
            block.steps += part.steps
            block.times_ns += part.times_ns
        for key in range(len(self._keys)):
            for part in parts:
                values, present = part.columns[key]
                block.values += values
                block.present += present
        return block


def _column(values: Sequence[float | None]) -> tuple[array[float], bytes]:
    """Return values, NaN for None, and which of them are none."""
    present = bytes(value is not None for value in values)
    return array("d", [math.nan if value is None else value for value in values]), present


def _has_nan(column: array[float]) -> bool:
    return core.span(column) is None if core is not None else math.isnan(sum(column))
