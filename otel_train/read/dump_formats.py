"""The formats of `otel-train dump`: JSON lines, CSV and Parquet, each written block by block."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from otel_train.exceptions import ConfigurationError
from otel_train.extras import require_extras
from otel_train.read.dump import FIELDS, RunDump
from otel_train.read.dump_blocks import KINDS, Block
from otel_train.read.row_texts import RowForm, row_texts

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("jsonl", "csv", "parquet")
GROUP = 4096
"""Rows from which on a Parquet row group is written."""


def format_of(name: str | None, out: Path | None) -> str:
    """Return the format: the one that is named, or that of the file's ending.

    Raises:
        ConfigurationError: Parquet has no file, or a pipe, or its package is missing.
    """
    chosen = name or (out.suffix.removeprefix(".") if out is not None and out.suffix[1:] in FORMATS else FORMATS[0])
    if chosen == "parquet":
        if out is None:
            raise ConfigurationError("dump --format parquet needs a file; give --out FILE.parquet")
        if out.is_fifo():
            raise ConfigurationError(f"dump --format parquet can't write to the pipe {out}; give --out FILE.parquet")
        require_extras("dump --format parquet", "inspect")
    return chosen


def write_dump(dump: RunDump, form: str, out: Path | None) -> None:
    """Write the rows of a dump.

    Args:
        dump: The rows.
        form: One of `FORMATS`.
        out: The file, which appears when it is whole; None for stdout.
    """
    if out is None:
        _WRITERS[form](dump, sys.stdout.buffer)
        sys.stdout.flush()
        return
    with _whole(out) as part:
        if form == "parquet":
            _write_parquet(dump, part)
            return
        with part.open("wb") as file:
            _WRITERS[form](dump, file)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield the name of a file that replaces `path` once the block has written it.

    A link stays and its target is replaced; what is no regular file, a pipe or a device, is written as it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()  # of /dev/stdout that is a pipe, this would be no path
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write_jsonl(dump: RunDump, file: BinaryIO) -> None:
    values = [f", {json.dumps(name)}: " for name in dump.names().values()]
    for block in dump.blocks():
        identity = block.identity
        own = f'{{"run": {json.dumps(identity.run_id)}, "attempt": {identity.attempt}, "rank": {identity.rank}'
        form = RowForm(
            before=(own + ', "kind": "', '", "step": ', ', "time": "', '", "time_ns": '),
            after="}\n",
            quote='"',
            before_values=values,
            blanks=False,
        )
        file.writelines(row_texts(block, form))


def _write_csv(dump: RunDump, file: BinaryIO) -> None:
    names = dump.names().values()
    file.write((_csv_row(*FIELDS, *names) + "\n").encode())
    for block in dump.blocks():
        identity = block.identity
        own = _csv_row(identity.run_id, identity.attempt, identity.rank)
        form = RowForm(
            before=(own + ",", ",", ",", ","),
            after="\n",
            quote="",
            before_values=[","] * len(names),
            blanks=True,
        )
        file.writelines(row_texts(block, form))


def _csv_row(*cells: str | int) -> str:
    """Return cells as a row without its end, quoted where they must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().removesuffix("\n")


def _write_parquet(dump: RunDump, path: Path) -> None:
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
        group: list[pa.RecordBatch] = []
        for block in dump.blocks():
            group.append(_batch(block, schema))
            if sum(batch.num_rows for batch in group) >= GROUP:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))


def _batch(block: Block, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa  # noqa: PLC0415

    identity, rows = block.identity, len(block.steps)
    own = [[cell] * rows for cell in (identity.run_id, identity.attempt, identity.rank)]
    keys = range(len(schema) - len(FIELDS))
    values = [block.column(key) if block.has_all(key) else block.measured(key) for key in keys]
    kinds = [KINDS[kind] for kind in block.kinds]
    columns = [*own, kinds, block.steps, block.times_ns, block.times_ns, *values]
    arrays = [
        pa.Array.from_buffers(field.type, rows, [None, pa.py_buffer(cells)])
        if isinstance(cells, array)
        else pa.array(cells, type=field.type)
        for cells, field in zip(columns, schema, strict=True)
    ]
    order = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(block.order)])
    return pa.record_batch(arrays, schema=schema).take(order)


_WRITERS: dict[str, Callable[[RunDump, BinaryIO], None]] = {"jsonl": _write_jsonl, "csv": _write_csv}
