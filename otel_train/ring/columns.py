"""Read a whole ring as columns: which of its records are whole, then those of their values that are asked for.

A ring of a million steps is a gigabyte. One pass checks all records and keeps eight bytes of each field of their heads;
each column that is asked for is one more pass, over memory that is given back to the kernel as the pass goes on. So
a reader needs as much memory as the columns that it holds, whatever the ring's size.
"""

from __future__ import annotations

import math
import mmap
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from struct import Struct
from zlib import crc32

from otel_train.how_far import tell
from otel_train.native import core
from otel_train.ring.file_format import KIND_MASK, LOGGED, MOST_TOLD, PARTS_SHIFT, Kind
from otel_train.ring.reader import RingReader

PASS_BYTES = 4 << 20
"""Memory of the file that a pass holds at once."""
_IN_CACHE = 1 << 11
"""Records of which all columns are read before the next ones: what is read of them stays in a core's cache."""
_AROUND = 1 << 16
"""Bytes around a page that the kernel maps with it."""
_HEAD = Struct("<QqqQ")
_WORDS = 4
_LOW = KIND_MASK | LOGGED | MOST_TOLD << PARTS_SHIFT
_KINDS = tuple(int(kind) for kind in Kind)


@dataclass(slots=True)
class Heads:
    """Heads of the whole records of one kind, in the order of the ring; int64 [records] each."""

    sequences: array[int] = field(default_factory=lambda: array("q"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    times_ns: array[int] = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class RingHeads:
    """Heads of a ring's records."""

    rank: Heads = field(default_factory=Heads)
    """Those with the rank's own values, but for logged ones."""
    cluster: Heads = field(default_factory=Heads)
    """Those with the cluster's."""
    whole: int = 0
    """Number of all whole records, parts among them."""
    late: array[int] = field(default_factory=lambda: array("q"))
    """Sequence numbers of records with values of late keys, logged ones and others."""


class RingColumns:
    """The columns of one ring.

    Args:
        reader: The ring.
    """

    def __init__(self, reader: RingReader) -> None:
        self.reader = reader
        geometry = reader.geometry
        self._place = geometry.header_size, geometry.record_size, geometry.records
        self._at_once = max(1, PASS_BYTES // geometry.record_size)
        self._counted = reader.base_layout.counted
        self._is_kept = False

    def keep(self) -> None:
        """Keep the memory of a ring that one pass reads in this process, from pass to pass."""
        self._is_kept = self.reader.geometry.records <= self._at_once

    def release(self) -> None:
        """Give that back now, and after each pass from now on."""
        if self._is_kept:
            self._is_kept = False
            self._give_back(0, self.reader.geometry.records)

    def heads(self, first: int | None = None, stop: int | None = None) -> RingHeads:
        """Return the heads of all whole records that the ring has now, or of those with numbers in [first, stop)."""
        written = self.reader.progress.written
        heads = RingHeads()
        first = max(0, written - self.reader.geometry.records) if first is None else first
        stop = written if stop is None else stop
        for begin in range(first, stop, self._at_once):
            end = min(stop, begin + self._at_once)
            fields = array("q", bytes(8 * _WORDS * (end - begin)))
            length = _WORDS * _whole_records(self.reader.mapping, *self._place, begin, end, fields)
            self._give_back(begin, end)
            heads.whole += length // _WORDS
            _sort(heads, *(fields[at:length:_WORDS] for at in range(_WORDS)))
            tell("records checked", end - first, stop - first)
        return heads

    def columns(self, sequences: array[int], indices: Sequence[int]) -> list[array[float]]:
        """Return some values of each record, in one pass; NaN where the record has been overwritten meanwhile.

        Args:
            sequences: The records' sequence numbers, growing.
            indices: The values' indices in a record.

        Returns:
            float64 [records] for each index; a count that is none is 0, as in `RingReader.read`.
        """
        made = [array("d", [0.0]) * len(sequences) for _ in indices]
        for begin in range(0, len(sequences), self._at_once):
            end = min(len(sequences), begin + self._at_once)
            for first in range(begin, end, _IN_CACHE):
                stop = min(end, first + _IN_CACHE)
                for index, out in zip(indices, made, strict=True):
                    _gather(self.reader.mapping, *self._place, sequences, first, stop, _HEAD.size + 8 * index, out)
            self._give_back(sequences[begin], sequences[end - 1] + 1)
        lost = self._overwritten(sequences)
        return [self._plausible(out, index, lost) for index, out in zip(indices, made, strict=True)]

    def _plausible(self, column: array[float], index: int, lost: Sequence[int]) -> array[float]:
        most = self._counted.get(index)
        if most is not None and not _all_counts(column, most):
            column = array("d", [value if abs(value) < most else 0.0 for value in column])
        for at in lost:
            column[at] = math.nan
        return column

    def _overwritten(self, sequences: array[int]) -> list[int]:
        """Return the indices of records that the writer may have written over by now, be it in part."""
        geometry, written = self.reader.geometry, self.reader.progress.written
        gone = bisect_left(sequences, written - geometry.records)
        # The record that is being written, with its parts, is not counted yet.
        doubtful = bisect_left(sequences, written - geometry.records + geometry.most_parts + 1)
        return [*range(gone), *self._torn(sequences, gone, doubtful)]

    def _torn(self, sequences: array[int], begin: int, end: int) -> list[int]:
        """Return the indices in [begin, end) of records that are not whole any more."""
        if begin == end:
            return []
        first, stop = sequences[begin], sequences[end - 1] + 1
        heads = array("q", bytes(8 * _WORDS * (stop - first)))
        count = _whole_records(self.reader.mapping, *self._place, first, stop, heads)
        whole = set(heads[: _WORDS * count : _WORDS])
        return [at for at in range(begin, end) if sequences[at] not in whole]

    def _give_back(self, begin: int, end: int) -> None:
        """Let the kernel take the memory of some records out of this process; the file's content stays."""
        if self._is_kept:
            return
        first, size, records = self._place
        if end - begin >= records or begin % records > (end - 1) % records:
            start, stop = first, first + records * size
        else:
            start, stop = first + begin % records * size, first + ((end - 1) % records + 1) * size
        # The kernel has brought back some of the pages before, around the first one.
        start = max(0, start - _AROUND) // mmap.PAGESIZE * mmap.PAGESIZE
        self.reader.mapping.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _all_counts(column: array[float], most: float) -> bool:
    if core is not None:
        span = core.span(column)
        return not column or (span is not None and span[1] < most and span[0] > -most)
    # NaN is neither less nor more, and makes the sum NaN.
    return not column or (max(column) < most and min(column) > -most and not math.isnan(sum(column)))


def _sort(heads: RingHeads, sequences: array[int], steps: array[int], times: array[int], words: array[int]) -> None:
    """Add records to those of their kinds."""
    low = bytes(map(_LOW.__and__, words))
    for kinds, of_kind in (((Kind.RANK, Kind.BOTH), heads.rank), ((Kind.CLUSTER, Kind.BOTH), heads.cluster)):
        own = low.translate(bytes(byte & KIND_MASK in kinds and not byte & LOGGED for byte in range(256)))
        for column, values in ((of_kind.sequences, sequences), (of_kind.steps, steps), (of_kind.times_ns, times)):
            column.extend(_chosen(values, own))
    late = low.translate(bytes(byte & KIND_MASK in _KINDS and byte > KIND_MASK for byte in range(256)))
    heads.late.extend(_chosen(sequences, late))


def _chosen(values: array[int], chosen: bytes) -> array[int]:
    count = chosen.count(1)
    if not count:
        return array("q")
    if count == len(chosen):
        return values
    return array("q", list(compress(values, chosen)))


def _whole_records_twin(  # noqa: PLR0917  # as the core
    mapping: mmap.mmap, first: int, size: int, records: int, begin: int, end: int, heads: array[int]
) -> int:
    """Count the whole records among those with the sequence numbers [begin, end), and write their heads."""
    count = 0
    for sequence in range(begin, end):
        offset = first + sequence % records * size
        data = mapping[offset : offset + size]
        head = array("q", data[: _HEAD.size])
        if head[0] == sequence and int.from_bytes(data[-8:], "little") == crc32(data[:-8]):
            heads[_WORDS * count : _WORDS * count + _WORDS] = head
            count += 1
    return count


def _gather_twin(  # noqa: PLR0917  # as the core
    mapping: mmap.mmap,
    first: int,
    size: int,
    records: int,
    sequences: array[int],
    begin: int,
    end: int,
    offset: int,
    out: array[float],
) -> None:
    """Write the float64 at an offset of some records to the same indices of `out`."""
    take = Struct("<d").unpack_from
    for at in range(begin, end):
        out[at] = take(mapping, first + sequences[at] % records * size + offset)[0]


_whole_records: Callable[..., int] = _whole_records_twin if core is None else core.whole_records
_gather: Callable[..., None] = _gather_twin if core is None else core.gather
