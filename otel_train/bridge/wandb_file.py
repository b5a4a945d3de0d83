"""Read the history rows of wandb's transaction logs (`.wandb` files), also of a run that goes on."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from otel_train.bridge.errors import WandbFileError
from otel_train.bridge.identity import safe_id

FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK_BYTES = 32 * 1024
MAX_RECORD_BYTES = 64 * 2**20
_CHUNK = struct.Struct("<IHB")  # CRC, length, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_PADDING = 0


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of a run's history."""

    ordinal: int
    """wandb's `_step`: the row's place in its run."""
    timestamp: float
    """wandb's `_timestamp`: when the step was measured, in seconds since 1970."""
    values: dict[str, Any]
    """What was logged, without wandb's own keys (those with a leading underscore)."""


def wandb_files(state_dir: str | Path, run_id: str) -> list[Path]:
    """Return the transaction logs of a run, one for each time that a bridge opened it, by name.

    Args:
        state_dir: The bridge's state directory.
        run_id: The run's id, as the job gave it.
    """
    return sorted((Path(state_dir) / "wandb").glob(f"*run-*/run-{safe_id(run_id)}.wandb"))


def read_run(state_dir: str | Path, run_id: str) -> list[HistoryRow]:
    """Return all rows of a run, over all of its files, each file's in the order in which they stand.

    The files follow each other by their first rows: their names have a time of whole seconds only.

    Raises:
        WandbFileError: A file is damaged.
    """
    segments = [list(read_history(path)) for path in wandb_files(state_dir, run_id)]
    segments.sort(key=lambda rows: rows[0].ordinal if rows else -1)
    return [row for segment in segments for row in segment]


def read_history(path: str | Path) -> Iterator[HistoryRow]:
    """Yield the history rows of one `.wandb` file.

    Args:
        path: The file. One that is still written, or whose writer was killed, may end within a record: what is
            whole is yielded.

    Raises:
        WandbFileError: It is no such file, or it is damaged before its end.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # as late as wandb's own

    wandb_pb: Any = import_module("wandb.proto.wandb_internal_pb2")  # imports all of wandb; has no stubs
    with Path(path).open("rb") as file:
        for offset, data in _records(file, str(path)):
            try:
                record = wandb_pb.Record.FromString(data)
                if record.WhichOneof("record_type") == "history":
                    yield _row([_item(item) for item in record.history.item])
            except (DecodeError, ValueError) as error:
                raise WandbFileError(f"{path}: the record that ends at {offset} can't be read: {error}") from error


def _records(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (offset of its end, bytes) of each whole record."""
    record = None
    for end, kind, data in _chunks(file, name):
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or (record is None) != (kind in (_FULL, _FIRST)):
            raise WandbFileError(f"{name}: a chunk of type {kind} can't end at {end}; the file is damaged")
        record = data if record is None else record + data
        if len(record) > MAX_RECORD_BYTES:
            raise WandbFileError(f"{name}: the record at {end} is larger than {MAX_RECORD_BYTES} bytes")
        if kind in (_FULL, _LAST):
            yield end, record
            record = None


def _chunks(file: BinaryIO, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield (offset of its end, type, bytes) of each chunk: LevelDB's log, but with the plain CRC-32."""
    block = file.read(BLOCK_BYTES)
    if not block:
        return  # wandb has made the file and flushed nothing yet
    if block[: len(FILE_HEADER)] != FILE_HEADER:
        raise WandbFileError(f"{name} is not a wandb transaction log: it begins with {block[: len(FILE_HEADER)]!r}")
    start, position = 0, len(FILE_HEADER)
    while block:
        while position + _CHUNK.size <= len(block):
            crc, length, kind = _CHUNK.unpack_from(block, position)
            begin, end = position + _CHUNK.size, position + _CHUNK.size + length
            if (crc, length, kind) == (0, 0, _PADDING):
                break
            if end > len(block) and len(block) < BLOCK_BYTES:
                return  # torn at the end of the file
            data = block[begin:end]
            if end > len(block) or zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc:
                raise WandbFileError(f"{name}: wrong length or check value at {start + position}; the file is damaged")
            yield start + end, kind, data
            position = end
        start, position = start + len(block), 0
        block = file.read(BLOCK_BYTES)


def _item(item: Any) -> tuple[str, Any]:
    key = item.key or ".".join(item.nested_key)
    typed = item.WhichOneof("value")
    if typed is None:  # wandb writes `value_json` unless it is told otherwise
        return key, json.loads(item.value_json)
    value = getattr(item, typed)
    if typed == "json":
        return key, json.loads(value)
    return key, None if typed == "none" else value


def _row(items: list[tuple[str, Any]]) -> HistoryRow:
    row = dict(items)
    values = {key: value for key, value in row.items() if not key.startswith("_")}
    return HistoryRow(int(row.get("_step", 0)), float(row.get("_timestamp", 0.0)), values)
