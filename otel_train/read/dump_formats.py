"""The formats of `otel-train dump`: JSON lines, CSV and Parquet, each written row by row."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from otel_train.exceptions import ConfigurationError
from otel_train.extras import require_extras
from otel_train.read.dump import FIELDS, Cell, Dump, Row

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("jsonl", "csv", "parquet")
BATCH = 4096
"""Rows of a Parquet row group."""


def format_of(name: str | None, out: Path | None) -> str:
    """Return the format: the one that is named, or that of the file's ending.

    Raises:
        ConfigurationError: Parquet has no file, or its package is missing.
    """
    chosen = name or (out.suffix.removeprefix(".") if out is not None and out.suffix[1:] in FORMATS else FORMATS[0])
    if chosen == "parquet":
        if out is None:
            raise ConfigurationError("dump --format parquet needs a file; give --out FILE.parquet")
        require_extras("dump --format parquet", "inspect")
    return chosen


def write_dump(dump: Dump, form: str, out: Path | None) -> None:
    """Write the rows of a dump.

    Args:
        dump: The rows.
        form: One of `FORMATS`.
        out: The file, which appears when it is whole; None for stdout.
    """
    if out is None:
        _WRITERS[form](dump, sys.stdout)
        sys.stdout.flush()
        return
    with _whole(out) as part:
        if form == "parquet":
            _write_parquet(dump, part)
            return
        with part.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[form](dump, file)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield the name of a file that replaces `path` once the block has written it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def plain(value: Cell) -> Cell:
    """Return a value as text where JSON has no number for it: NaN, Infinity, -Infinity, as protobuf's JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _write_jsonl(dump: Dump, file: TextIO) -> None:
    texts = ({key: plain(value) for key, value in row.items()} for row in dump.rows())
    file.writelines(json.dumps(text, allow_nan=False) + "\n" for text in texts)


def _write_csv(dump: Dump, file: TextIO) -> None:
    writer = csv.DictWriter(file, [*FIELDS, *dump.names().values()], restval="", lineterminator="\n")
    writer.writeheader()
    for row in dump.rows():
        writer.writerow({key: plain(value) for key, value in row.items()})


def _write_parquet(dump: Dump, path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415  # an extra
    from pyarrow import parquet  # noqa: PLC0415

    schema = pa.schema(
        [
            ("run", pa.string()),
            ("attempt", pa.int64()),
            ("rank", pa.int64()),
            ("kind", pa.string()),
            ("step", pa.int64()),
            ("time", pa.timestamp("ns", "UTC")),
            ("time_ns", pa.int64()),
            *((name, pa.float64()) for name in dump.names().values()),
        ]
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in _batches(dump.rows()):
            writer.write_batch(_batch(rows, schema))


def _batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa  # noqa: PLC0415

    columns: list[list[Any]] = [
        [row.get("time_ns" if column.name == "time" else column.name) for row in rows] for column in schema
    ]
    arrays = [pa.array(values, type=column.type) for values, column in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        yield batch


_WRITERS: dict[str, Callable[[Dump, TextIO], None]] = {"jsonl": _write_jsonl, "csv": _write_csv}
