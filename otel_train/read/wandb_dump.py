"""The rows of `otel-train dump` from wandb's files: a bridge's, by run, or a single one."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from otel_train.bridge.safe_names import safe_id
from otel_train.bridge.wandb_file import SUFFIX, TransactionLog
from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.read.dump import Dump, RunDump, Selection, chosen_columns
from otel_train.read.dump_blocks import KINDS, LOGGED_SUFFIX, Block
from otel_train.read.find import find_job
from otel_train.read.load import state_of
from otel_train.read.rings import OtherRunError
from otel_train.read.row_spool import ABSENT_BITS, BLOCK_ROWS, MOST
from otel_train.read.wandb import files_of, is_wandb_file, spooled_run
from otel_train.ring import Identity, Kind

_OWN, _LOGGED = KINDS.index("cluster"), KINDS.index("cluster" + LOGGED_SUFFIX)
_FIELD_KEYS = (rows.STEP.wandb_key, ATTEMPT_KEY)
"""Keys whose values are in the first columns."""


def open_dump(source: Path | None, selection: Selection) -> RunDump:
    """Return the rows of a source.

    Args:
        source: A directory of rings, or one with such directories in it, a bridge's state directory, or a `.wandb`
            file; None for this user's newest job on this machine. Where rings are beside wandb files, they are read.
        selection: The records and values that are written.

    Raises:
        ConfigurationError: There is no such source, or it has not what is selected.
        OtelTrainError: It can't be read.
    """
    if source is not None and is_wandb_file(source):
        run = source.stem.removeprefix("run-")
        if selection.run and safe_id(selection.run) != run:
            raise ConfigurationError(f"{source} is of run {run}, not {selection.run!r:.80}")
        return WandbDump([source], run, selection)
    if source is not None and not source.is_dir():
        raise ConfigurationError(f"{source} is neither a directory nor a {SUFFIX} file; see --help")
    state = state_of(source) if source is not None else None
    try:
        rings = find_job(source)
    except OtelTrainError:
        if state is None:
            raise
    else:
        try:
            return Dump(rings, selection)
        except OtherRunError as error:
            if state is None:
                raise ConfigurationError(str(error)) from error
    run, files = files_of(state, selection.run)
    return WandbDump(files, run, selection)


class WandbDump(RunDump):
    """The rows of a run's files: the cluster's values, in the order of the files.

    Args:
        files: The files.
        run: The run's id.
        selection: The records and values that are written.

    Raises:
        ConfigurationError: A metric is not there, or a single rank's values are asked for.
        OtelTrainError: A file is damaged, or there is no step in it.
    """

    def __init__(self, files: Sequence[Path], run: str, selection: Selection) -> None:
        super().__init__()
        if selection.ranks or selection.kind is Kind.RANK:
            option = f"--rank {selection.ranks[0]}" if selection.ranks else "--kind rank"
            raise ConfigurationError(f"{option}: wandb files have the cluster's values only; give the job's rings")
        self._run, self._selection = run, selection
        spool = self._spool = spooled_run(", ".join(map(str, files)), _in_their_order(files))
        self._attempts = [
            0 if math.isnan(attempt) else round(max(-MOST, min(attempt, MOST))) for attempt in spool.attempts
        ]
        keys = [key for key in spool.keys() if key not in _FIELD_KEYS]  # noqa: SIM118  # it is no mapping
        self.columns = chosen_columns(keys, selection.metrics)

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in blocks of columns, the values in the order of `columns`."""
        spool, selection = self._spool, self._selection
        first_step = -math.inf if selection.since_step is None else selection.since_step
        attempt = None if selection.all_attempts else max(self._attempts)
        chosen = [at for at, other in enumerate(self._attempts) if attempt in (None, other)]
        newest = max(map(spool.times_ns.__getitem__, chosen))
        first_ns = -math.inf if selection.since_ns is None else newest - selection.since_ns
        kinds = self._kinds()
        selected = [row for row in chosen if spool.steps[row] >= first_step and spool.times_ns[row] >= first_ns]
        for (_, own), part in groupby(selected, lambda row: (row // BLOCK_ROWS, self._attempts[row])):
            yield self._block(list(part), own, kinds)

    def _kinds(self) -> bytearray:
        """Return each row's index in `KINDS`.

        What was logged beside the steps lacks what each row of a step has. Where no row has it, another sender's are
        told by their steps: one that its attempt has had is of values logged beside it.
        """
        bits = memoryview(self._spool.column(rows.RANKS.wandb_key)).cast("B").cast("Q")
        if any(map(ABSENT_BITS.__ne__, bits)):
            return bytearray(_LOGGED if absent else _OWN for absent in map(ABSENT_BITS.__eq__, bits))
        kinds, newest = bytearray(), dict[int, int]()
        for step, attempt in zip(self._spool.steps, self._attempts, strict=True):
            kinds.append(_LOGGED if step <= newest.get(attempt, -1) else _OWN)
            newest[attempt] = max(step, newest.get(attempt, -1))
        return kinds

    def _block(self, numbers: Sequence[int], attempt: int, kinds: bytearray) -> Block:
        """Return rows of one block of the spool, by their numbers."""
        first = numbers[0] // BLOCK_ROWS * BLOCK_ROWS
        block = Block(
            Identity(run_id=self._run, attempt=attempt),
            order=array("q", range(len(numbers))),
            kinds=bytearray(map(kinds.__getitem__, numbers)),
            steps=array("q", map(self._spool.steps.__getitem__, numbers)),
            times_ns=array("q", map(self._spool.times_ns.__getitem__, numbers)),
        )
        for key in self.columns:
            part = self._spool.part(key, first)
            if len(part) != len(numbers):
                part = array("d", [part[number - first] for number in numbers])
            block.values += part
            block.present += bytes(map(ABSENT_BITS.__ne__, memoryview(part).cast("B").cast("Q")))
        return block

    def close(self) -> None:
        """Release what the rows are read from."""
        self._spool.close()


def _in_their_order(files: Sequence[Path]) -> Iterator[Path]:
    """Yield files in the order of their first rows: their names have a time of whole seconds only."""
    yield from sorted(files, key=_first_ordinal) if len(files) > 1 else files


def _first_ordinal(file: Path) -> int:
    with TransactionLog(file) as log:
        return next(log.ordinals(), -1)
