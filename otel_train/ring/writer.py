"""Write a ring: one process, fixed-size records, no lock, no system call, never blocking."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast
from zlib import crc32

from otel_train.catalogue import Metric, Phase
from otel_train.descriptors import open_private, standard_descriptors
from otel_train.exceptions import RingError
from otel_train.native import core
from otel_train.native.records import Ring
from otel_train.ring.directory import NEW_SUFFIX
from otel_train.ring.facts import Fact
from otel_train.ring.file_format import (
    ABANDONED_OFFSET,
    CURSOR_OFFSET,
    END_OFFSET,
    ENDING,
    ENDING_OFFSET,
    ERROR,
    ERROR_OFFSET,
    LOGGED,
    MOST_TOLD,
    ORDINAL_SHIFT,
    PARTS_SHIFT,
    PHASE,
    PHASE_OFFSET,
    PID_SPACE,
    PID_SPACE_OFFSET,
    PROGRESS_OFFSET,
    STEP_OFFSET,
    SUFFIX,
    End,
    Geometry,
    Kind,
    newest_cursor,
    pack_header,
)
from otel_train.ring.late_keys import LateValue, NewKeys, dump_parts, part_word
from otel_train.ring.schema import Identity, Schema, dump_schema
from otel_train.ring.writable_pages import AHEAD, make_writable
from otel_train.ring.writer_process import pid_space, start_time

_RANK, _NEXT_ORDINAL = int(Kind.RANK), 1 << ORDINAL_SHIFT
_pack_check = struct.Struct("<Q").pack_into
_pack_written = struct.Struct("<Q").pack_into
_pack_progress = struct.Struct("<Qqq").pack_into
_pack_step = struct.Struct("<qq").pack_into
_pack_end = _pack_abandoned = struct.Struct("<Q").pack_into
_pack_phase = PHASE.pack_into


def ring_path(directory: Path, identity: Identity) -> Path:
    """Return the name of the ring of one rank and attempt."""
    return directory / f"rank{identity.rank:05d}-{identity.attempt}{SUFFIX}"


class RingWriter(Ring):
    """The writing end of one rank's ring.

    Args:
        path: The file; it must not exist. It appears under this name when its header is whole.
        schema: Meaning of a record's values.
        identity: The rank that writes.
        records: How many records the ring holds before it overwrites the oldest.
        facts: Settings of the job by name, for people who look at the ring.

    Raises:
        RingError: The file can't be made (no space, no permission, it exists, no reader would take its sizes).
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        identity: Identity,
        *,
        records: int = 4096,
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        layout = schema.layout()
        encoded = dump_schema(schema, identity, facts or {})
        self.path = path
        self.written = 0
        # A record holds sums, peaks and the ranks of the peaks, whatever its kind; the totals are the sums of all
        # acknowledged records, the rank's own and the cluster's.
        self.geometry = Geometry(layout.sums + 2 * layout.peaks, 2 * layout.sums, records, len(encoded))
        record = self.geometry.record_struct
        # A step is written in a microsecond: all that it needs is looked up once.
        self._pack, self._body = record.pack_into, record.size
        self._first, self._size, self._records = self.geometry.header_size, self.geometry.record_size, records
        if not self.geometry.plausible:
            raise RingError(
                f"ring {path} can't be made: {records} records of {self.geometry.values} values and a schema of "
                f"{len(encoded)} bytes are beyond what a reader takes; measure less"
            )
        if path.exists():
            raise RingError(f"ring {path} can't be made: it exists")
        with standard_descriptors():
            self._file, descriptor = _allocate(path.with_suffix(NEW_SUFFIX), self.geometry.file_size)
        self._unlock = weakref.finalize(self, os.close, descriptor)
        _OPEN.add(self)
        self._no_values = (0.0,) * self.geometry.values
        self._most_parts = self.geometry.most_parts
        self._new_keys = NewKeys(schema, self.geometry)
        header = pack_header(self.geometry, os.getpid(), start_time(os.getpid()), crc32(encoded), time.time_ns())
        self._file[: len(header)] = header
        PID_SPACE.pack_into(self._file, PID_SPACE_OFFSET, *pid_space())
        self._file[self.geometry.schema_offset : self.geometry.schema_offset + len(encoded)] = encoded
        path.with_suffix(NEW_SUFFIX).rename(path)
        self._view = memoryview(self._file)
        self.step, self.numbered, self.writing = -(2**62), 0, False
        self.bind(self._file, self._first, self._size, records, self._body)
        self._abandoned = 0
        self._released: int | None = None
        """Records that were acknowledged when the mapping was given back."""

    def add_key(self, metric: Metric) -> int | None:
        """Add a key that came after the first step, and return its index among them; again for the same name.

        Args:
            metric: A mean, norm or sum of the user's own. The schema may have it too, where a value of it was logged
                beside the steps.

        Returns:
            The index that `write` takes; None where the ring has no room for one more.

        Raises:
            RingError: It can't be such a key, or the schema has another metric of that name.
        """
        return self._new_keys.add(metric, self._file) if self._released is None else None

    def write(
        self,
        step: int,
        time_ns: int,
        kind: int,
        values: Sequence[float],
        late: Sequence[LateValue] = (),
        *,
        logged: bool = False,
    ) -> None:
        """Append one record; the oldest is overwritten when the ring is full.

        Args:
            step: The step that the values belong to.
            time_ns: Its time stamp, nanoseconds since the epoch.
            kind: Whose values these are, one of `Kind`; a record with the cluster's values gets the next ordinal.
            values: float64 [geometry.values].
            late: Index (from `add_key`), total and weight of each late key that has a value.
            logged: Whether the values were logged beside the steps: the record has the late ones only, `values` are
                left out, and the rank's progress stays. Its time stamp needs a millisecond of its own: stores that
                count in them refuse a second value of a series in one.
        """
        if late or logged:
            self.writing = True  # the core, which takes no lock, leaves the ring alone meanwhile
            try:
                self._write_late(step, time_ns, kind, values, late, logged=logged)
            finally:
                self.writing = False
        else:
            self.append(step, time_ns, kind, values)

    def append(self, step: int, time_ns: int, kind: int, values: Sequence[float]) -> None:
        """Append a record without late values; see `write`."""
        sequence = self.written
        offset = self._first + sequence % self._records * self._size
        file = self._file
        if kind != _RANK:
            self.numbered += _NEXT_ORDINAL
            kind += self.numbered
        self._pack(file, offset, sequence, step, time_ns, kind, *values)
        end = offset + self._body
        _pack_check(file, end, crc32(self._view[offset:end]))
        self.written = sequence + 1
        if step > self.step:
            self.step = step
            _pack_progress(file, PROGRESS_OFFSET, sequence + 1, step, time_ns)
        else:  # the cluster's values of a step came back when the rank is at a later one
            _pack_written(file, PROGRESS_OFFSET, sequence + 1)

    def _write_late(
        self,
        step: int,
        time_ns: int,
        kind: int,
        values: Sequence[float],
        late: Sequence[LateValue],
        *,
        logged: bool,
    ) -> None:
        """Append a record with late values: its parts, then itself; a reader sees all of them or none."""
        parts, sequence = dump_parts(late, self.geometry.values, self._most_parts), self.written
        for index, part in enumerate(parts):
            self._put(sequence, step, time_ns, part_word(index, len(parts)), part)
            sequence += 1
        if kind != Kind.RANK:
            self.numbered += _NEXT_ORDINAL
            kind |= self.numbered
        word = kind | min(len(parts), MOST_TOLD) << PARTS_SHIFT
        if logged:
            self._put(sequence, step, time_ns, word | LOGGED, self._no_values)
        else:
            self._put(sequence, step, time_ns, word, values)
        self.written = sequence + 1
        if step > self.step and not logged:
            self.step = step
            _pack_progress(self._file, PROGRESS_OFFSET, sequence + 1, step, time_ns)
        else:
            _pack_written(self._file, PROGRESS_OFFSET, sequence + 1)

    def _put(self, sequence: int, step: int, time_ns: int, word: int, values: Sequence[float]) -> None:
        """Write a record that no reader looks at yet."""
        begin = self._first + sequence % self._records * self._size
        self._pack(self._file, begin, sequence, step, time_ns, word, *values)
        end = begin + self._body
        _pack_check(self._file, end, crc32(self._view[begin:end]))

    def mark(self, step: int, time_ns: int) -> None:
        """Note that a step has ended without a record, so that a look at the ring tells how far the rank is.

        Another thread may write a record of the cluster's values at the same time.
        """
        self.step = step
        _pack_step(self._file, STEP_OFFSET, step, time_ns)

    @property
    def abandoned(self) -> int:
        """Reductions that the rank has thrown away."""
        return self._abandoned

    @abandoned.setter
    def abandoned(self, count: int) -> None:
        self._abandoned = count
        _pack_abandoned(self._file, ABANDONED_OFFSET, count)

    def enter(self, phase: Phase) -> None:
        """Note the phase of the training thread from now on: where it hangs, the ring tells in which phase."""
        _pack_phase(self._file, PHASE_OFFSET, phase, time.time_ns())

    @property
    def acknowledged(self) -> int:
        """How many records the sidecar's receiver has, or will never have because they were overwritten.

        A reader of the same file in this process would end the lock when it is closed.
        """
        if self._released is not None:
            return self._released
        return newest_cursor(self._file, self.geometry)[1].position

    def close(
        self, step: int, time_ns: int, end: End = End.CLOSED, error: str = "", *, is_ending: bool = False
    ) -> None:
        """Note how the session has ended. The mapping stays until `release`.

        Args:
            step: The last step that ended.
            time_ns: The present time, nanoseconds since the epoch.
            end: How the session ended.
            error: Name of the exception that it ended with.
            is_ending: Whether records still follow, and then another call of this: who reads the ring while the process
                lives is to wait for them.
        """
        self.mark(step, time_ns)
        ERROR.pack_into(self._file, ERROR_OFFSET, error.encode())
        if end is End.PROCESS and not error:
            self._note_exit()
        ENDING.pack_into(self._file, ENDING_OFFSET, is_ending)
        _pack_end(self._file, END_OFFSET, end)
        self.enter(Phase.ENDED)

    def _note_exit(self) -> None:
        """Have the process note its exit code at the very end, which Python's hooks do not learn."""
        if core is None:
            return
        with contextlib.suppress(OSError), self.path.open("r+b", buffering=0) as file:
            core.note_exit(file.fileno())

    def touch_ahead(self) -> bool:
        """Have the pages of the header and of the next records be writable; called by another thread.

        Returns:
            Whether it is of use to call it again.
        """
        mapping, first = self._file, self._first
        if not isinstance(mapping, mmap.mmap):
            return False
        length = max(AHEAD * mmap.PAGESIZE, 4 * self._size)
        begin, end = first + self.written % self._records * self._size, self.geometry.file_size
        beyond = begin + length - end
        return (
            make_writable(mapping, 0, first)
            and make_writable(mapping, begin, min(end, begin + length))
            and (beyond <= 0 or make_writable(mapping, first, first + beyond))
        )

    @property
    def released(self) -> bool:
        """Whether mapping, file and lock were given back."""
        return self._released is not None

    def release(self) -> None:
        """Give mapping, file and lock back; later calls that note something have no effect."""
        if self._released is None:
            self._released = self.acknowledged
            mapping, self._file = self._file, cast("mmap.mmap", bytearray(CURSOR_OFFSET))
            self._view.release()
            self.unbind()
            with contextlib.suppress(BufferError):  # another thread has it in its hands, and is the one to drop it
                mapping.close()
            self._unlock()


if core is not None:
    RingWriter.append = core.Ring.append  # type: ignore[method-assign]
_OPEN: weakref.WeakSet[RingWriter] = weakref.WeakSet()


def has_open_ring(directory: Path) -> bool:
    """Tell whether this process writes a ring in a directory: opening and closing its file here would end its lock."""
    return any(not ring.released and ring.path.parent == directory for ring in list(_OPEN))


def _allocate(path: Path, size: int) -> tuple[mmap.mmap, int]:
    """Make a file of that size with its blocks allocated: a full disk must be an error here, not a SIGBUS later.

    The file is locked for as long as this process lives and keeps it open: that tells a sidecar in another container,
    which can't see the process, that it lives. Children don't inherit such a lock.
    """
    descriptor = -1
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.posix_fallocate(descriptor, 0, size)
        # Its pages are mapped now: a fault in each page's first record would show in the slowest steps.
        mapping = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        raise RingError(f"ring {path} of {size} bytes can't be made: {error.strerror}") from error
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return mapping, descriptor
