"""The format of a ring file: the offset of each part, and which values are plausible.

    0      fixed header: magic, sizes, writer's pid and start time, offset of the schema
    64     where the writer's pid means something: boot id, pid namespace
    88     points refused, by reason (the sidecar's); the rest of the cursor's are without one
    120    whether a receiver knows that the session has failed (the sidecar's)
    128    progress: records written, last step, its time, how the session ended, reductions abandoned (the writer's)
    168    whether a session that has ended still writes its last records (the writer's)
    192    phase: what the training thread does, and since when (the writer's)
    208    name of the exception that the session ended with (the writer's)
    256    two cursor slots (the sidecar's): generation, cursor, dropped, time of the rank's newest values sent, points
           refused, position that requests have reached, time of the rank's newest logged values sent, running totals at
           the cursor and there, check value
    ...    schema: JSON
    ...    key table: rows of size, check value, JSON; they are appended as keys come, and never change
    ...    records, each: sequence, step, time stamp, kind and ordinal, values, check value

All integers are little-endian. The writer updates the number of records written after a record is whole, and a record
carries its sequence number and a check value, so a reader on any processor sees whether it read a whole one. The two
cursor slots are written in turn: a crash in the middle of one leaves the other.

A record has one of three kinds, and room for the same values whichever it has: sums, peaks, the ranks of the peaks.

    RANK     the rank's own values of a step; the ranks of the peaks are 0, and so is the ordinal
    CLUSTER  the values of a step reduced over all ranks, in rank 0's ring only, and often after RANK records of later
             steps; cluster records are numbered from 1, by their ordinal
    BOTH     in the ring of a job of one rank, whose own values are the cluster's: written once, with an ordinal

`RingReader.read` gives a BOTH record as two, a RANK and a CLUSTER record of one sequence number, so that only two
kinds leave it.

A *late key* is one that the schema has not: it came after the first step. Each row of the key table adds one, so the
ring has several schemas in turn. All records have the size that the schema gives them; the values of late keys stand in
*parts*, records of their own right before the record that they belong to, as (index in the table, total, weight) in a
row. That record tells that it has parts, and each part which of how many it is. A *logged* record has nothing but
parts: values that were not made by the step that it names, as those of an evaluation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from mmap import mmap
from typing import NamedTuple
from zlib import crc32

from otel_train.catalogue import Layout
from otel_train.exceptions import RingError

MAGIC = b"OTELTRN1"
VERSION = 4
FIXED = struct.Struct("<8sIIIIqqIIIIQ")
"""magic, version, header size, record size, records, pid, pid start, slot size, schema offset, schema size, schema crc,
creation time."""
PID_SPACE_OFFSET = 64
PID_SPACE = struct.Struct("<16sQ")
"""id of the boot, inode of the pid namespace; zeros where they are not known, as in rings of earlier releases."""
REFUSED_OFFSET = 88
REFUSED = struct.Struct("<8I")
"""points refused for each reason, in the order of `Refusal`; zeros in rings of earlier releases."""
MOST_REFUSED = (1 << 32) - 1
END_TOLD_OFFSET = 120
END_TOLD = struct.Struct("<Q")
"""1 when a receiver has acknowledged that the session has ended, and not by being closed; else 0."""
PROGRESS_OFFSET = 128
PROGRESS = struct.Struct("<QqqQQ")
"""records written, last step, its time, how the session ended, reductions abandoned."""
STEP_OFFSET = PROGRESS_OFFSET + 8
"""Offset of the step and its time."""
END_OFFSET = PROGRESS_OFFSET + 24
"""Offset of the last two of these."""
ABANDONED_OFFSET = END_OFFSET + 8
ENDING_OFFSET = PROGRESS_OFFSET + PROGRESS.size
ENDING = struct.Struct("<Q")
"""1 while records still follow the end, of a session that was closed amid a call of its own; else 0, as in rings of
earlier releases."""
PHASE_OFFSET = 192
PHASE = struct.Struct("<Qq")
"""phase, the time at which it began."""
ERROR_OFFSET = 208
ERROR = struct.Struct("<48s")
"""name of an exception in UTF-8, filled up with zeros."""
CURSOR_OFFSET = 256
PAGE = 4096
MAX_SCHEMA = 1 << 20
MAX_VALUES = 1 << 16
MAX_ATTRIBUTES = 96
"""Attributes of a resource at most, besides our own and the SDK's: receivers take 128."""
MAX_RECORDS = 1 << 24
MOST_LATE_KEYS = 128
KEY_TABLE_SIZE = 32 << 10
KEY_ROW = struct.Struct("<II")
"""Bytes and check value of the JSON that follows; a row without bytes is not written yet."""
LATE = 3
"""float64 of a late value: index in the key table, total, weight."""
NO_KEY = -1.0
"""Index that fills up the last part."""
ORDINAL_SHIFT = 8
"""Bits of a record's kind; the higher bits are the ordinal of a record that has the cluster's values, else 0."""
KIND_MASK = 7
"""The bits of `Kind`, or `PART`."""
PART = 4
"""Kind of a part; above it stand its index among the parts of its record and, `PART_SHIFT` higher, their number."""
PART_SHIFT = 16
LOGGED = 8
"""Bit of a record whose only values are its parts'."""
PARTS_SHIFT = 4
MOST_TOLD = 15
"""The number of its parts that a record tells at most, in the bits from `PARTS_SHIFT` on."""
COUNTS = 1 << 60
"""Bound of all counts, such as records: sums of two still fit the integers of the ring and of OTLP."""
SUFFIX = ".ring"


class Kind(IntEnum):
    """Whose values a record holds."""

    RANK = 1
    """The rank's own."""
    CLUSTER = 2
    """Reduced over all ranks."""
    BOTH = 3
    """The only rank's own, which are the cluster's too. In files only: a reader gives two records."""


class End(IntEnum):
    """How a rank's session ended."""

    OPEN = 0
    """It goes on, or its process was killed."""
    CLOSED = 1
    """Its user closed it."""
    PROCESS = 2
    """Its process ended."""
    SIGNAL = 3
    """A signal ended its process, and the session before."""


_NO_LAYOUT = Layout(())


class Record(NamedTuple):
    """One record as it was read."""

    sequence: int
    step: int
    time_ns: int
    kind: Kind
    values: tuple[float, ...]
    ordinal: int = 0
    """Running number among the ring's records with the cluster's values, from 1; 0 for a record without them."""
    layout: Layout = _NO_LAYOUT
    """The offsets of the measures in `values`. A late key that has no value in this record is absent there."""
    logged: bool = False
    """Whether the values were logged beside the steps: the layout has late keys only."""
    parts: int = 0
    """Records right before it that hold its late values."""
    partial: bool = False
    """Whether it has lost its late values: one of its parts is torn or overwritten."""

    @property
    def first(self) -> int:
        """Sequence number of its first part, or its own."""
        return self.sequence - self.parts

    def by_key(self) -> dict[str, float]:
        """Return the values by wandb key, with the ranks of the peaks where the values are the cluster's."""
        sums, peaks, peak_ranks = self.layout.split(self.values)
        return self.layout.by_key(sums, peaks, peak_ranks if self.kind is Kind.CLUSTER else ())


class Cursor(NamedTuple):
    """Position and totals up to which the sidecar's receiver has the records."""

    position: int
    """Sequence number of the next record to send."""
    dropped: int
    """Records that were overwritten or torn before they were sent."""
    totals: tuple[float, ...]
    """Sums of all records before the position: the rank's own, then the cluster's."""
    rank_time_ns: int = 0
    """The time stamp of the rank's newest own values that were acknowledged; 0 before the first."""
    refused: int = 0
    """Points that the receiver refused for good."""
    sent: int = 0
    """The position that a request has reached, acknowledged or not."""
    sent_totals: tuple[float, ...] = ()
    """Totals at `sent`: points that are sent again after records were overwritten must have the same values."""
    logged_time_ns: int = 0
    """The time stamp of the newest values that the rank logged beside the steps and that were acknowledged."""


class Geometry(NamedTuple):
    """The sizes of a ring file, which follow from the schema's size and the numbers of values and totals."""

    values: int
    """float64 in a record."""
    totals: int
    """float64 in a cursor slot."""
    records: int
    schema_size: int

    @property
    def record_struct(self) -> struct.Struct:
        """A record without its check value: sequence, step, time stamp, kind and ordinal, values."""
        return struct.Struct(f"<QqqQ{self.values}d")

    @property
    def record_size(self) -> int:
        """Bytes of a record, the check value included."""
        return 40 + 8 * self.values

    @property
    def slot_struct(self) -> struct.Struct:
        """A cursor slot without its check value: generation, then the cursor's fields, both totals last."""
        return struct.Struct(f"<QQQqQQq{2 * self.totals}d")

    @property
    def slot_size(self) -> int:
        """Bytes of a cursor slot, the check value included."""
        return 64 + 16 * self.totals

    @property
    def schema_offset(self) -> int:
        """Offset of the schema."""
        return CURSOR_OFFSET + 2 * self.slot_size

    @property
    def table_offset(self) -> int:
        """Offset of the key table."""
        return self.schema_offset + self.schema_size

    @property
    def header_size(self) -> int:
        """Offset of the records: the header takes whole pages."""
        return -(-(self.table_offset + KEY_TABLE_SIZE) // PAGE) * PAGE

    @property
    def most_parts(self) -> int:
        """The parts that a record has at most: they leave the other half of the ring to others."""
        return min(-(-LATE * MOST_LATE_KEYS // max(1, self.values)), self.records // 2) if self.values else 0

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self.header_size + self.records * self.record_size

    @property
    def plausible(self) -> bool:
        """Whether the sizes are within the bounds that a reader accepts."""
        return (
            0 <= self.values <= MAX_VALUES
            and 0 <= self.totals <= MAX_VALUES
            and 0 < self.records <= MAX_RECORDS
            and self.schema_size <= MAX_SCHEMA
        )

    def offset(self, sequence: int) -> int:
        """Return the offset of the record with that sequence number."""
        return self.header_size + sequence % self.records * self.record_size


class Header(NamedTuple):
    """Content of the fixed header, checked."""

    geometry: Geometry
    pid: int
    pid_start: int
    schema_crc: int
    created_ns: int


def pack_header(geometry: Geometry, pid: int, pid_start: int, schema_crc: int, created_ns: int) -> bytes:
    """Return the fixed header's bytes."""
    return FIXED.pack(
        MAGIC,
        VERSION,
        geometry.header_size,
        geometry.record_size,
        geometry.records,
        pid,
        pid_start,
        geometry.slot_size,
        geometry.schema_offset,
        geometry.schema_size,
        schema_crc,
        created_ns,
    )


def unpack_header(data: bytes, file_size: int, path: str) -> Header:
    """Read the fixed header and check each of its claims against the others and the file.

    Raises:
        RingError: It is not a ring, of another version, or its sizes do not fit together.
    """
    if len(data) < FIXED.size:
        raise RingError(f"{path} is not a ring file: it has {len(data)} bytes")
    fields: Sequence[int] = FIXED.unpack(data[: FIXED.size])[1:]
    if data[:8] != MAGIC:
        raise RingError(f"{path} is not a ring file: it does not begin with {MAGIC!r}")
    version, header_size, record_size, records, pid, pid_start, slot_size, schema_at, schema_size, crc, created = fields
    if version != VERSION:
        raise RingError(f"{path} has ring version {version}, this otel_train reads {VERSION}; use the writer's release")
    geometry = Geometry((record_size - 40) // 8, (slot_size - 64) // 16, records, schema_size)
    plausible = (
        geometry.plausible
        and geometry.record_size == record_size
        and geometry.slot_size == slot_size
        and geometry.schema_offset == schema_at
        and geometry.header_size == header_size
        and geometry.file_size == file_size
    )
    if not plausible:
        raise RingError(f"{path} is damaged: the sizes in its header do not fit together; move it away")
    return Header(geometry, pid, pid_start, crc, created)


def newest_cursor(file: mmap, geometry: Geometry) -> tuple[int, Cursor]:
    """Return the last cursor that was written whole, and its generation; the beginning and 0 where none was."""
    best = (0, Cursor(0, 0, (0.0,) * geometry.totals, sent_totals=(0.0,) * geometry.totals))
    for index in range(2):
        start = CURSOR_OFFSET + index * geometry.slot_size
        data = file[start : start + geometry.slot_size]
        if int.from_bytes(data[:8], "little") <= best[0] or int.from_bytes(data[-8:], "little") != crc32(data[:-8]):
            continue
        generation, position, dropped, rank_time_ns, refused, sent, logged_ns, *sums = geometry.slot_struct.unpack_from(
            data
        )
        if max(generation, position, dropped, refused, sent) < COUNTS:
            totals, sent_totals = tuple(sums[: geometry.totals]), tuple(sums[geometry.totals :])
            best = (generation, Cursor(position, dropped, totals, rank_time_ns, refused, sent, sent_totals, logged_ns))
    return best
