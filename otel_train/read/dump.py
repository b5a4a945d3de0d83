"""A run's records as rows for other programs (`otel-train dump`): those in a job's rings, of a live or a dead job."""

from __future__ import annotations

import difflib
import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from otel_train.exceptions import ConfigurationError, OtelTrainError, RingError
from otel_train.how_far import tell
from otel_train.read.dump_blocks import KINDS, Block, RingBlocks
from otel_train.read.first_record import first_record
from otel_train.read.history import first_names
from otel_train.read.rings import OtherRunError
from otel_train.read.row_texts import rfc3339
from otel_train.ring import Kind, Record, RingReader, Stamp, ring_files

FIELDS = ("run", "attempt", "rank", "kind", "step", "time", "time_ns")
"""Columns of each row before the values."""
PREFIX = "metric/"
"""Prefix of a value's name that is one of `FIELDS`."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Cell = str | int | float
Row = dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Selection of records, and of their values."""

    run: str = ""
    """The run's id, where the source holds several; empty for the only one, or the newest rings."""
    since_step: int | None = None
    """The first step."""
    since_ns: int | None = None
    """Length of the time span that ends with the job's newest record, in nanoseconds."""
    ranks: tuple[int, ...] = ()
    """Empty for all."""
    metrics: tuple[str, ...] = ()
    """Names or patterns of values; empty for all."""
    kind: Kind | None = None
    """None for both."""
    all_attempts: bool = False
    """Whether older attempts are included."""


def parse_since(text: str) -> tuple[int | None, int | None]:
    """Return the first step or, of a time span such as 10m, its nanoseconds, as `--since` gives them.

    Raises:
        ConfigurationError: It is neither.
    """
    match = re.fullmatch(r"(\d{1,15})([smhd]?)", text, re.ASCII)
    if match is None:
        raise ConfigurationError(f"--since must be a step or a time span such as 90s, 10m, 2h or 1d, got {text!r:.80}")
    number, unit = int(match[1]), match[2]
    return (None, number * _SECONDS[unit] * 10**9) if unit else (number, None)


def chosen_columns(keys: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that patterns name, all where there is none; in the order of the keys.

    Raises:
        ConfigurationError: A pattern names none.
    """
    keys = tuple(keys)
    selected: set[str] = set()
    for pattern in patterns:
        matches = {key for key in keys if key == pattern} or set(fnmatch.filter(keys, pattern))
        if not matches:
            nearest = difflib.get_close_matches(pattern, keys, 1, 0.3)
            hint = f"the nearest is {nearest[0]!r}" if nearest else f"there is {next(iter(keys), 'none')!r}"
            raise ConfigurationError(f"--metric {pattern!r:.80} is not one of this job's; {hint}")
        selected |= matches
    return tuple(key for key in keys if key in selected) if selected else keys


class RunDump(ABC):
    """The rows of a run."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        """The names of the values that a row may have."""
        self.torn = 0
        """Records that were left out, because they were torn, or overwritten before they were read."""
        self.damaged: list[str] = []
        """Messages about the rings that were left out."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Yield the rows in blocks of columns, the values in the order of `columns`."""

    @abstractmethod
    def close(self) -> None:
        """Release what the rows are read from."""

    def names(self) -> dict[str, str]:
        """Return the name of each of `columns` in a row."""
        return {key: PREFIX + key if key in FIELDS else key for key in self.columns}

    def rows(self) -> Iterator[Row]:
        """Yield one row a record, without the values that nobody measured in its interval."""
        names = self.names().values()
        for block in self.blocks():
            identity = block.identity
            columns = [block.measured(key) for key in range(len(names))]
            for at in block.order:
                row: Row = {
                    "run": identity.run_id,
                    "attempt": identity.attempt,
                    "rank": identity.rank,
                    "kind": KINDS[block.kinds[at]],
                    "step": block.steps[at],
                    "time": rfc3339(block.times_ns[at]),
                    "time_ns": block.times_ns[at],
                }
                values = ((name, column[at]) for name, column in zip(names, columns, strict=True))
                yield row | {name: value for name, value in values if value is not None}


class Dump(RunDump):
    """The rows of a directory's rings: rank by rank, as they were written.

    Args:
        directory: The directory of the rings.
        selection: The records and values that are written.

    Raises:
        ConfigurationError: A rank or a metric is not there.
        OtelTrainError: No ring can be read.
    """

    def __init__(self, directory: Path, selection: Selection | None = None) -> None:
        super().__init__()
        self.directory = directory
        self.selection = Selection() if selection is None else selection
        self._readers: list[RingReader] = []
        for path in ring_files(self.directory):
            try:
                reader = RingReader(path)
                _ = reader.progress
            except RingError as error:
                self.damaged.append(str(error))
            else:
                self._readers.append(reader)
        if not self._readers:
            why = self.damaged[0] if self.damaged else "wait for the job's first step, or give another directory"
            raise OtelTrainError(f"{self.directory} holds no ring that can be read: {why}")
        self._choose_run()
        if not self.selection.all_attempts:
            newest = max(reader.identity.attempt for reader in self._readers)
            self._readers = [reader for reader in self._readers if reader.identity.attempt == newest]
        self._choose_ranks()
        keys = dict.fromkeys(key for reader in self._readers for key in reader.layout.keys if key is not None)
        self.columns = chosen_columns(keys, self.selection.metrics)

    def _choose_run(self) -> None:
        run = self.selection.run
        of_run = [reader for reader in self._readers if reader.identity.run_id == run]
        if run and not of_run:
            names = first_names(sorted({reader.identity.run_id for reader in self._readers}))
            raise OtherRunError(f"{self.directory} holds no ring of run {run!r:.80}; it has {names}")
        self._readers = of_run or self._readers

    def _choose_ranks(self) -> None:
        present = sorted({reader.identity.rank for reader in self._readers})
        for rank in self.selection.ranks:
            if rank not in present:
                first = ", ".join(map(str, present[:16])) + (" …" if len(present) > 16 else "")
                raise ConfigurationError(f"--rank {rank} has no ring in {self.directory}; there are {first}")
        if self.selection.ranks:
            self._readers = [reader for reader in self._readers if reader.identity.rank in self.selection.ranks]

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in blocks of columns, the values in the order of `columns`."""
        after = None
        if self.selection.since_ns is not None:
            after = max(reader.progress.time_ns for reader in self._readers) - self.selection.since_ns
        for number, reader in enumerate(self._readers):
            tell("rings", number, len(self._readers))
            yield from self._blocks_of(reader, after)
        tell("rings", 1, 1)

    def _blocks_of(self, reader: RingReader, after: int | None) -> Iterator[Block]:
        """Yield what the ring holds now, and nothing that a running job adds meanwhile."""
        first = self.selection.since_step

        def is_before(stamp: Stamp | Record) -> bool:
            return (first is not None and stamp.step < first) or (after is not None and stamp.time_ns < after)

        is_part = first is not None or after is not None
        blocks = RingBlocks(reader, self.columns, self.selection.kind, is_before if is_part else None)
        try:
            end = reader.progress.written
            begin = position = max(0, end - reader.geometry.records)
            if is_part:
                position = first_record(reader, begin, end, is_before)
            for sequence in reader.logged(begin, position):
                yield blocks.single(sequence)
            yield from blocks.between(position, end)
        except RingError as error:
            self.damaged.append(str(error))
        self.torn += blocks.torn

    def close(self) -> None:
        """Release the mappings."""
        for reader in self._readers:
            reader.close()
