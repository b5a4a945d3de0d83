"""A ring file whose sizes and check values fit whatever is in it: schema, NUL, progress, slots, records, key rows."""

from __future__ import annotations

from io import BytesIO
from zlib import crc32

from fuzz.targets import ring
from otel_train.exceptions import OtelTrainError
from otel_train.ring.file_format import (
    CURSOR_OFFSET,
    KEY_ROW,
    KEY_TABLE_SIZE,
    PROGRESS,
    PROGRESS_OFFSET,
    Geometry,
    pack_header,
)
from otel_train.ring.schema import load_schema

RECORDS = 4


def run(data: bytes) -> None:
    """Read what a damaged or hostile writer would have written with care."""
    schema, _, content = data.partition(b"\0")
    ring.run(build(schema, content))


def build(schema: bytes, content: bytes) -> bytes:
    """Return the ring file of a schema, with progress, cursor slots and records from the content, in that order."""
    geometry = Geometry(*_widths(schema), RECORDS, len(schema))
    if not geometry.plausible:
        return b""
    parts = BytesIO(content)
    file = bytearray(geometry.file_size)

    def put(offset: int, size: int, *, check: bool = True) -> None:
        part = parts.read(size).ljust(size, b"\0")
        file[offset : offset + size] = part
        if check:
            file[offset + size : offset + size + 8] = crc32(part).to_bytes(8, "little")

    header = pack_header(geometry, 1, 0, crc32(schema), 1)
    file[: len(header)] = header
    file[geometry.schema_offset : geometry.schema_offset + len(schema)] = schema
    put(PROGRESS_OFFSET, PROGRESS.size, check=False)
    for index in range(2):
        put(CURSOR_OFFSET + index * geometry.slot_size, geometry.slot_struct.size)
    for index in range(RECORDS):
        put(geometry.offset(index), geometry.record_struct.size)
    # What is left are the rows of the key table, one a line.
    offset = geometry.table_offset
    for row in parts.read().split(b"\n"):
        end = offset + KEY_ROW.size + len(row)
        if end > geometry.table_offset + KEY_TABLE_SIZE:
            break
        file[offset:end] = KEY_ROW.pack(len(row), crc32(row)) + row
        offset = end
    return bytes(file)


def _widths(schema: bytes) -> tuple[int, int]:
    """Return the numbers of values and totals that fit a schema; any, where it is refused anyhow."""
    try:
        layout = load_schema(schema, "x.ring")[0].layout()
    except (OtelTrainError, IndexError):
        return 0, 0
    return layout.sums + 2 * layout.peaks, 2 * layout.sums
