"""Read a ring: records from a position on, with a count of those that were overwritten or torn."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import weakref
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from otel_train.catalogue import MOST_COUNTED, Layout, Metric, Phase
from otel_train.exceptions import RingError
from otel_train.refusals import OTHER, Refusal
from otel_train.ring.file_format import (
    COUNTS,
    CURSOR_OFFSET,
    END_TOLD,
    END_TOLD_OFFSET,
    ENDING,
    ENDING_OFFSET,
    ERROR,
    ERROR_OFFSET,
    FIXED,
    KIND_MASK,
    LOGGED,
    MOST_REFUSED,
    MOST_TOLD,
    ORDINAL_SHIFT,
    PART,
    PARTS_SHIFT,
    PHASE,
    PHASE_OFFSET,
    PID_SPACE,
    PID_SPACE_OFFSET,
    PROGRESS,
    PROGRESS_OFFSET,
    REFUSED,
    REFUSED_OFFSET,
    Cursor,
    End,
    Kind,
    Record,
    newest_cursor,
    unpack_header,
)
from otel_train.ring.late_keys import KeyTable, load_parts, part_of, part_word
from otel_train.ring.schema import load_schema
from otel_train.ring.writer_process import PidSpace, lives_and_stopped, pid_space

_WORDS_AT_ONCE = 512
_KINDS = {int(kind): kind for kind in Kind}
_KINDS_IN_FILE = {*_KINDS, PART}
_ENDS = {int(end): end for end in End}
_PHASES = {int(phase): phase for phase in Phase}


class Progress(NamedTuple):
    """How far the writer is."""

    written: int
    """Records written."""
    step: int
    """Last step that the rank has ended."""
    time_ns: int
    """Time of that step's end."""
    closed: bool
    """Whether the session has ended, in whatever way; see `end`."""
    abandoned: int
    """Reductions that the rank has thrown away."""
    end: End = End.OPEN
    """How it ended."""
    is_ending: bool = False
    """Whether it has ended amid a call, and writes its last records after that if its process lives."""


class Stamp(NamedTuple):
    """Position of a record in its run, without its values."""

    step: int
    time_ns: int
    kind: Kind


_RELEASED_FROM = 1 << 16
"""Bytes of records from which a reader gives back the pages of what it has read: a long ring must not fill its memory.
The sidecar's does not, which reads few at a time and soon the next ones."""


class RingReader:
    """The reading end of a ring.

    Args:
        path: The ring file.
        writable: Whether the cursor may be moved (the sidecar), or nothing at all (everybody else).

    Raises:
        RingError: It is not a ring, is damaged, or can't be opened.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        try:
            self._descriptor = number = _open(path, writable=writable)
            self._close = weakref.finalize(self, os.close, number)  # also of one that turns out to be damaged
            size = os.fstat(number).st_size
            self.header = unpack_header(os.pread(number, FIXED.size, 0), size, str(path))
            self._file = mmap.mmap(number, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        except RingError:
            raise
        except (OSError, ValueError) as error:
            raise RingError(f"ring {path} can't be opened: {error}") from error
        self.geometry = self.header.geometry
        start = self.geometry.schema_offset
        encoded = self._file[start : start + self.geometry.schema_size]
        if crc32(encoded) != self.header.schema_crc:
            raise RingError(f"{path} is damaged: its schema does not fit its check value; move it away")
        self.schema, self.identity, self.facts = load_schema(encoded, str(path))
        self._table = KeyTable(self.schema, self.geometry, str(path))
        base = self._table.base
        if (self.geometry.values, self.geometry.totals) != (base.sums + 2 * base.peaks, 2 * base.sums):
            raise RingError(f"{path} is damaged: its records do not fit its schema; move it away")
        self._table.read(self._file)
        self._struct = self.geometry.record_struct
        self._most_parts = self.geometry.most_parts
        self._counted = base.counted
        # Twice, so that it is a tuple of any number of them.
        self._counts = itemgetter(*self._counted, *self._counted) if self._counted else None
        self._slot = self.geometry.slot_struct
        self._writable = writable
        self._generation, _ = newest_cursor(self._file, self.geometry)

    @property
    def mapping(self) -> mmap.mmap:
        """The file, mapped."""
        return self._file

    @property
    def base_layout(self) -> Layout:
        """The layout of the schema, without late keys."""
        return self._table.base

    @property
    def layout(self) -> Layout:
        """The layout of the schema and the late keys, which come after its sums; `read` may make a new one."""
        return self._table.all

    @property
    def late_keys(self) -> tuple[Metric, ...]:
        """The late keys that the ring has by now, as far as the last `read` tells."""
        return self._table.keys

    @property
    def progress(self) -> Progress:
        """How far the writer is, now.

        Raises:
            RingError: It counts more than a writer can have counted.
        """
        written, step, time_ns, end, abandoned = PROGRESS.unpack_from(self._file, PROGRESS_OFFSET)
        if max(written, abandoned) >= COUNTS:
            raise RingError(f"{self.path} is damaged: it counts {written} records; move it away")
        [is_ending] = ENDING.unpack_from(self._file, ENDING_OFFSET)
        return Progress(written, step, time_ns, bool(end), abandoned, _ENDS.get(end, End.CLOSED), bool(is_ending))

    @property
    def phase(self) -> tuple[Phase | None, int]:
        """Phase of the writer's training thread, and its beginning (ns); None for a phase of another release."""
        phase, since = PHASE.unpack_from(self._file, PHASE_OFFSET)
        return _PHASES.get(phase), since

    @property
    def error(self) -> str:
        """Name of the exception that the session ended with; empty without one."""
        name: bytes = ERROR.unpack_from(self._file, ERROR_OFFSET)[0]
        return name.rstrip(b"\0").decode(errors="replace")

    @property
    def writer_lives(self) -> bool:
        """Whether the process that made the ring still lives; see `look_at_writer`."""
        return self.look_at_writer()[0]

    def look_at_writer(self) -> tuple[bool, bool]:
        """Tell whether the process that made the ring still lives: it is visible, or it holds the file's lock.

        A process of another container is not visible. In a ring that was copied from another machine, or that a
        restart of this one has left, the writer's pid means nothing: another process may have it by now.

        Returns:
            Also whether that process is visible and stopped, by a signal or a debugger.
        """
        pid, started = self.header.pid, self.header.pid_start
        lives, stopped = lives_and_stopped(pid, started) if self._names_pid else (False, False)
        return lives or self._is_locked(), stopped

    @property
    def _names_pid(self) -> bool:
        """Whether the writer's pid means something here."""
        return PidSpace(*PID_SPACE.unpack_from(self._file, PID_SPACE_OFFSET)).may_be(pid_space())

    def _is_locked(self) -> bool:
        # Shared, for a moment, and only where the writer is gone: it has its lock before the file has its name, and two
        # readers may hold one each. So one reader never blocks another, or the writer.
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)  # others are of a file system without locks
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return False

    def read(self, position: int, limit: int) -> tuple[list[Record], int, int]:
        """Read up to `limit` records from `position` on.

        Returns:
            The whole records, the position after the last one looked at, and how many were overwritten or torn. A
            record of the kind BOTH comes as two, RANK and CLUSTER, of the same sequence number. Parts count as records
            in the position and among those that are lost, but are given as values of theirs only, and the position is
            never between the two.

        Raises:
            RingError: The ring is damaged.
        """
        written = self.progress.written
        self._table.read(self._file)  # a key is there before a record that has a value of it
        sequence = max(position, written - self.geometry.records)
        lost = sequence - position
        end = min(written, sequence + limit)
        records: list[Record] = []
        while sequence < end:
            stored = self._stored(sequence)
            if stored is None:
                lost += 1
            elif stored[2] & KIND_MASK == PART:
                index, count = part_of(stored[2])
                end = max(end, min(written, sequence + 1 + count - index))
            else:
                record = self._record(sequence, *stored)
                if record.kind is Kind.BOTH:
                    records += record._replace(kind=Kind.RANK, ordinal=0), record._replace(kind=Kind.CLUSTER)
                else:
                    records.append(record)
            sequence += 1
        self._release_pages(max(position, written - self.geometry.records), end)
        return records, max(end, position), lost

    def stamp(self, sequence: int) -> Stamp | None:
        """Return step, time and kind of a record of the steps; None of a part, a logged or torn one, or another's."""
        stored = self._stored(sequence)
        if stored is None or stored[2] & KIND_MASK == PART or stored[2] & LOGGED:
            return None
        return Stamp(stored[0], stored[1], _KINDS[stored[2] & KIND_MASK])

    def logged(self, begin: int, end: int) -> Iterator[int]:
        """Yield the sequence numbers from `begin` on, before `end`, of records that may be logged beside the steps."""
        self._table.read(self._file)
        if not self._table.keys:  # such a record has values of late keys alone
            return
        word = struct.Struct(f"<24xQ{self.geometry.record_size - 32}x")
        while begin < end:
            # None goes over the file's end.
            stop = min(end, begin + _WORDS_AT_ONCE, begin + self.geometry.records - begin % self.geometry.records)
            start = self.geometry.offset(begin)
            records = self._file[start : start + (stop - begin) * word.size]
            for sequence, (bits,) in enumerate(word.iter_unpack(records), start=begin):
                if bits & LOGGED and bits & KIND_MASK != PART:
                    yield sequence
            self._release_pages(begin, stop)
            begin = stop

    def _release_pages(self, begin: int, end: int) -> None:
        """Give back the pages of these records; the next reading of one of them gets it from the file again."""
        size = self.geometry.record_size
        if self._writable or (end - begin) * size < _RELEASED_FROM:
            return
        first, last = self.geometry.offset(begin), self.geometry.offset(end - 1) + size
        whole = self.geometry.header_size, self.geometry.file_size
        for start, stop in [(first, last)] if first < last else [(first, whole[1]), (whole[0], last)]:
            # The kernel has brought back some of those before, around the first page.
            aligned = max(0, start - _RELEASED_FROM) // mmap.PAGESIZE * mmap.PAGESIZE
            self._file.madvise(mmap.MADV_DONTNEED, aligned, stop - aligned)

    def record(self, sequence: int) -> Record | None:
        """Return one record as the file has it, also of the kind BOTH; None where it is not whole, or a part."""
        self._table.read(self._file)
        stored = self._stored(sequence)
        return None if stored is None or stored[2] & KIND_MASK == PART else self._record(sequence, *stored)

    def _record(self, sequence: int, step: int, time_ns: int, word: int, values: Sequence[float]) -> Record:
        """Return a record with the late values of its parts; without these where one is torn or overwritten."""
        table, layout, parts, partial = self._table, self._table.all, 0, False
        logged = bool(word & LOGGED)
        if table.keys or logged:
            read = self._parts(sequence, step, time_ns, word)
            parts, partial = len(read), not read and bool(word >> PARTS_SHIFT & MOST_TOLD)
            late = load_parts([number for part in read for number in part], len(table.keys))
            layout, values = (table.late, table.logged(late)) if logged else (layout, table.joined(values, late))
        kind, ordinal = _KINDS[word & KIND_MASK], word >> ORDINAL_SHIFT
        return Record(sequence, step, time_ns, kind, tuple(values), ordinal, layout, logged, parts, partial)

    def _parts(self, sequence: int, step: int, time_ns: int, word: int) -> list[Sequence[float]]:
        """Return the values of a record's parts, or none of them where one is missing."""
        told = word >> PARTS_SHIFT & MOST_TOLD
        last = self._stored(sequence - 1) if told else None
        if last is None or last[2] & KIND_MASK != PART:
            return []
        count = part_of(last[2])[1]
        parts = [self._stored(sequence - count + index) for index in range(count)]
        whole = [
            part[3]
            for index, part in enumerate(parts)
            if part is not None and part[:3] == (step, time_ns, part_word(index, count))
        ]
        return whole if len(whole) == count and min(count, MOST_TOLD) == told else []

    def _stored(self, sequence: int) -> tuple[int, int, int, Sequence[float]] | None:
        """Return step, time stamp, word and values of a record or part that is whole; the word holds its kind."""
        offset = self.geometry.offset(sequence)
        data = self._file[offset : offset + self.geometry.record_size]
        if int.from_bytes(data[-8:], "little") != crc32(data[:-8]):
            return None
        stored, step, time_ns, word, *values = self._struct.unpack_from(data)
        kind = word & KIND_MASK
        if stored != sequence or kind not in _KINDS_IN_FILE:
            return None
        if kind == PART:
            index, count = part_of(word)
            return (step, time_ns, word, values) if index < count <= self._most_parts else None
        if self._counts is not None and not abs(sum(self._counts(values))) < MOST_COUNTED:
            # The rank drops a count that is not finite, unless it was on a GPU: it must cost itself, not all totals.
            for index, limit in self._counted.items():
                values[index] = values[index] if abs(values[index]) < limit else 0.0
        return step, time_ns, word, values

    # -- the sidecar's cursor ------------------------------------------------------------------------------------

    @property
    def cursor(self) -> Cursor:
        """The last cursor that was written whole; the beginning where none was."""
        return newest_cursor(self._file, self.geometry)[1]

    def move_cursor(self, cursor: Cursor) -> None:
        """Note what has been sent and acknowledged."""
        generation = self._generation + 1
        counts = (cursor.position, cursor.dropped, cursor.rank_time_ns, cursor.refused, cursor.sent)
        body = self._slot.pack(generation, *counts, cursor.logged_time_ns, *cursor.totals, *cursor.sent_totals)
        start = CURSOR_OFFSET + generation % 2 * self.geometry.slot_size
        self._file[start : start + self.geometry.slot_size] = body + crc32(body).to_bytes(8, "little")
        self._generation = generation

    @property
    def end_told(self) -> bool:
        """Whether a receiver has acknowledged that the session has failed."""
        return END_TOLD.unpack_from(self._file, END_TOLD_OFFSET) == (1,)

    @property
    def refused(self) -> dict[str, int]:
        """Points that receivers refused for good, by reason; those without one are of `OTHER`."""
        return self.refusals(self.cursor.refused)

    def refusals(self, refused: int) -> dict[str, int]:
        """Return that for so many points, those of a cursor."""
        if not refused:
            return {}
        counts = REFUSED.unpack_from(self._file, REFUSED_OFFSET)
        named = {str(reason): count for reason, count in zip(Refusal, counts, strict=True) if count}
        rest = refused - sum(counts)
        return named | {OTHER: rest} if rest > 0 else named

    def note_refused(self, counts: Mapping[str, int]) -> None:
        """Note these, after the cursor: where a process is killed in between, the new ones are without a reason."""
        numbers = (min(counts.get(reason, 0), MOST_REFUSED) for reason in Refusal)
        REFUSED.pack_into(self._file, REFUSED_OFFSET, *numbers)

    def note_end_told(self) -> None:
        """Note that."""
        END_TOLD.pack_into(self._file, END_TOLD_OFFSET, 1)

    def close(self) -> None:
        """Give the mapping back."""
        self._file.close()
        self._close()


def _open(path: Path, *, writable: bool) -> int:
    """Open a file, without waiting: a pipe may have a ring's name."""
    return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
