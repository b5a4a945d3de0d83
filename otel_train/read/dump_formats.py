"""The formats of `otel-train dump`: JSON lines, CSV and Parquet, each written block by block."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from otel_train.exceptions import ConfigurationError
from otel_train.extras import require_extras
from otel_train.read.dump import FIELDS, Cell, Dump, rfc3339
from otel_train.read.dump_blocks import Block

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


def plain(value: Cell) -> Cell:
    """Return a value as text where JSON has no number for it: NaN, Infinity, -Infinity, as protobuf's JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _write_jsonl(dump: Dump, file: TextIO) -> None:
    keys = [json.dumps(name) for name in dump.names().values()]
    for block in dump.blocks():
        file.writelines(_json_lines(block, keys))


def _json_lines(block: Block, keys: Sequence[str]) -> Iterator[str]:
    """Return a block's rows as JSON; a column that has all values costs a row least."""
    identity, texts = block.identity, list[Sequence[object]]()
    row = f'{{"run": {json.dumps(identity.run_id)}, "attempt": {identity.attempt}, "rank": {identity.rank}'
    row = row.replace("%", "%%") + ', "kind": "%s", "step": %d, "time": "%s", "time_ns": %d'
    for key, column in zip(keys, block.values, strict=True):
        prefix = f", {key}: "
        if _all_finite(column):
            row += prefix.replace("%", "%%") + "%r"
            texts.append(column)
        else:
            row += "%s"
            texts.append(["" if value is None else prefix + _number(value) for value in column])
    times = map(rfc3339, block.times_ns)
    rows = zip(block.kinds, block.steps, times, block.times_ns, *texts, strict=True)
    return map((row + "}\n").__mod__, rows)


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else json.dumps(plain(value))


def _all_finite(column: Sequence[float | None]) -> bool:
    try:
        return math.isfinite(sum(column))  # type: ignore[arg-type]
    except TypeError:  # a missing value
        return False


def _write_csv(dump: Dump, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*FIELDS, *dump.names().values()])
    for block in dump.blocks():
        identity = block.identity
        own = [repeat(cell) for cell in (identity.run_id, identity.attempt, identity.rank)]
        columns = [
            column if _all_finite(column) else ["" if value is None else plain(value) for value in column]
            for column in block.values
        ]
        times = map(rfc3339, block.times_ns)
        writer.writerows(zip(*own, block.kinds, block.steps, times, block.times_ns, *columns, strict=False))


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
    columns: list[Any] = [*own, block.kinds, block.steps, block.times_ns, block.times_ns, *block.values]
    arrays = [pa.array(values, type=column.type) for values, column in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


_WRITERS: dict[str, Callable[[Dump, TextIO], None]] = {"jsonl": _write_jsonl, "csv": _write_csv}
