"""Read the history rows of wandb's transaction logs (`.wandb` files), also of a run that goes on."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import dropwhile
from pathlib import Path
from typing import Any, Self, TypeVar

from otel_train.bridge.errors import WandbFileError
from otel_train.bridge.safe_names import safe_id
from otel_train.paths import absolute

WANDB_FOLDER = "wandb"
"""Folder in a bridge's state directory with wandb's files."""
SUFFIX = ".wandb"
FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK_BYTES = 32 * 1024
MAX_RECORD_BYTES = 64 * 2**20
_LAST_BLOCKS = 8
"""Whole blocks at a file's end in which the run's end is looked for."""
_AHEAD_BYTES = 8 * BLOCK_BYTES
"""Bytes that are read at once."""
_CHUNK = struct.Struct("<IHB")  # CRC, length, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_NO_CHUNK = bytes(_CHUNK.size)
"""Bytes after the last chunk of a block that has room for one more."""
_UNREADABLE = (ArithmeticError, ValueError, TypeError, RecursionError)
"""Errors of values in a record that is none of a history row."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of a run's history."""

    ordinal: int
    """wandb's `_step`: the index of the row in its run."""
    timestamp: float
    """wandb's `_timestamp`: when the step was measured, in seconds since 1970."""
    values: dict[str, Any]
    """Values that were logged, without wandb's own keys (those with a leading underscore)."""


def wandb_files(state_dir: str | Path, run_id: str) -> list[Path]:
    """Return the transaction logs of a run, one for each time that a bridge opened it, by name.

    Args:
        state_dir: The bridge's state directory.
        run_id: The run's id, as the job gave it.
    """
    return sorted((absolute(state_dir) / WANDB_FOLDER).glob(f"*run-*/run-{safe_id(run_id)}{SUFFIX}"))


def run_ids_of_files(state_dir: str | Path) -> list[str]:
    """Return the ids, as wandb has them, of the runs that have a transaction log in a bridge's state directory."""
    files = (absolute(state_dir) / WANDB_FOLDER).glob(f"*run-*/run-*{SUFFIX}")
    return sorted({file.stem.removeprefix("run-") for file in files})


def read_run(state_dir: str | Path, run_id: str) -> list[HistoryRow]:
    """Return all rows of a run, over all of its files, in the order of each file.

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
    with TransactionLog(path) as log:
        yield from log.rows()


def recorded_exit(path: str | Path) -> int | None:
    """Return the exit code with which a run was finished in a file; None where it was not.

    Raises:
        WandbFileError: It is no such file, or its end is damaged.
    """
    code: int | None = None
    with TransactionLog(path) as log:
        for record in log.last_records():
            if record.HasField("exit"):
                code = record.exit.exit_code
    return code


class TransactionLog:
    """One `.wandb` file, read as far as it is written, and later from there on.

    Args:
        path: The file.
        take: What is first given the records, if anything, and reads as many as it can: it gets some blocks and the
            offset of the next record in them, and returns the offset after what it read, which is therefore not among
            what this yields.
    """

    def __init__(self, path: str | Path, take: Callable[[memoryview, int], int] | None = None) -> None:
        self._take = take
        self.path = Path(path)
        self._file = self.path.open("rb")
        self._block = 0
        """Offset of the block in which reading goes on."""
        self._position = len(FILE_HEADER)
        """Offset in that block."""
        self._record: list[bytes] = []
        """Chunks so far of a record that has more."""
        self._ahead = memoryview(bytearray(BLOCK_BYTES if take is None else _AHEAD_BYTES))
        """Bytes that were read at once."""
        self._begin = self._end = -1
        """Offsets in the file between which these are."""

    @property
    def position(self) -> int:
        """Offset in the file up to which it was read."""
        return self._block + self._position

    def rows(self) -> Iterator[HistoryRow]:
        """Yield the history rows after those of the last call.

        Raises:
            WandbFileError: It is no such file, or it is damaged there.
        """
        return self._history(history_row)

    def ordinals(self) -> Iterator[int]:
        """Yield what `rows` would, but only each row's ordinal, which is faster.

        Raises:
            WandbFileError: It is no such file, or it is damaged there.
        """
        return self._history(_ordinal)

    def sync(self) -> None:
        """Sync to the disk what was read: wandb leaves that to the kernel."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _history(self, read: Callable[[Any], T]) -> Iterator[T]:
        for record in self.records():
            if record.HasField("history"):
                try:
                    row = read(record.history)
                except _UNREADABLE as error:
                    raise self._unreadable(error) from error
                yield row

    def records(self) -> Iterator[Any]:
        """Yield wandb's records after those of the last call, of whatever type.

        Raises:
            WandbFileError: It is no such file, or it is damaged there.
        """
        for data in self._records(self._chunks()):
            yield self._parsed(data)

    def last_records(self) -> Iterator[Any]:
        """Yield the records that begin in the last blocks, instead of those of `records`.

        Raises:
            WandbFileError: It is no such file, or it is damaged there.
        """
        first = os.fstat(self._file.fileno()).st_size // BLOCK_BYTES - _LAST_BLOCKS
        if first > 0:
            self._block, self._position = first * BLOCK_BYTES, 0
        begun = dropwhile(lambda chunk: chunk[0] in (_MIDDLE, _LAST), self._chunks())
        for data in self._records(begun):
            yield self._parsed(data)

    def _parsed(self, data: bytes) -> Any:
        from google.protobuf.message import DecodeError  # noqa: PLC0415  # as late as wandb's own

        wandb_pb: Any = import_module("wandb.proto.wandb_internal_pb2")  # imports all of wandb; has no stubs
        try:
            return wandb_pb.Record.FromString(data)
        except DecodeError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> WandbFileError:
        return WandbFileError(
            f"{self.path}: the record that ends at {self._block + self._position} can't be read: {error}"
        )

    def _records(self, chunks: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
        size = 0
        for kind, data in chunks:
            if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or (not self._record) != (kind in (_FULL, _FIRST)):
                raise self._damaged(f"a chunk of type {kind} can't stand")
            self._record.append(data)
            if kind in (_FULL, _LAST):
                record, self._record, size = b"".join(self._record), [], 0
                yield record
            elif (size := size + len(data)) > MAX_RECORD_BYTES:
                raise self._damaged(f"a record is larger than {MAX_RECORD_BYTES} bytes")

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (type, bytes) of each chunk: LevelDB's log, but with the plain CRC-32."""
        self._begin = self._end = -1  # the file may have grown
        while True:
            if self._take is not None and not self._record:
                self._take_ahead(self._take)
            block = self._blocks(BLOCK_BYTES)[:BLOCK_BYTES]
            header = bytes(block[self._position : self._position + _CHUNK.size])
            if len(header) < _CHUNK.size or header == _NO_CHUNK:
                if len(block) < BLOCK_BYTES:
                    return
                self._block, self._position = self._block + BLOCK_BYTES, 0
                continue
            crc, length, kind = _CHUNK.unpack(header)
            begin, end = self._position + _CHUNK.size, self._position + _CHUNK.size + length
            if end > len(block) and len(block) < BLOCK_BYTES:
                return  # torn at the end of the file
            data = bytes(block[begin:end])
            if end > len(block) or zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc:
                raise self._damaged("a chunk with a wrong length or check value stands")
            self._position = end
            yield kind, data

    def _take_ahead(self, take: Callable[[memoryview, int], int]) -> None:
        """Let the records from here on be read by who takes them."""
        # What is left of the bytes read ahead is mostly a part of a record; a larger part is what nobody takes.
        while (position := take(self._blocks(_AHEAD_BYTES // 2), self._position)) > self._position:
            self._block += position // BLOCK_BYTES * BLOCK_BYTES
            self._position = position % BLOCK_BYTES

    def _blocks(self, least: int) -> memoryview:
        """Return what is in the file from the block on in which reading goes on: so many bytes, unless it ends before.

        Raises:
            WandbFileError: It is no such file.
        """
        is_at_end = self._begin <= self._block <= self._end < self._begin + len(self._ahead)
        if self._block + least > self._end and not is_at_end:
            self._file.seek(self._block)
            self._begin, self._end = self._block, self._block + self._file.readinto(self._ahead)
            start = bytes(self._ahead[: min(self._end, len(FILE_HEADER))])
            # An empty file is one that wandb has made and flushed nothing to yet.
            if self._block == 0 and start != FILE_HEADER[: len(start)]:
                raise WandbFileError(f"{self.path} is not a wandb transaction log: it begins with {start!r}")
        return self._ahead[self._block - self._begin : self._end - self._begin]

    def _damaged(self, what: str) -> WandbFileError:
        return WandbFileError(f"{self.path} is damaged: {what} at {self._block + self._position}")


def _item(item: Any) -> tuple[str, Any]:
    key = item.key or ".".join(item.nested_key)
    typed = item.WhichOneof("value")
    if typed is None:  # wandb writes `value_json` unless it is told otherwise
        return key, json.loads(item.value_json)
    value = getattr(item, typed)
    if typed == "json":
        return key, json.loads(value)
    return key, None if typed == "none" else value


def history_row(history: Any) -> HistoryRow:
    """Return what wandb's record of a history row says."""
    row = dict(_item(item) for item in history.item)
    values = {key: value for key, value in row.items() if not key.startswith("_")}
    return HistoryRow(int(row.get("_step", 0)), float(row.get("_timestamp", 0.0)), values)


def _ordinal(history: Any) -> int:
    # Nearly each row has one that is not 0.
    if ordinal := history.step.num:
        return int(ordinal)
    return 0 if history.HasField("step") else history_row(history).ordinal
