"""Read a run from wandb's files: a bridge's, by run, or a single one."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from operator import ge, le, lt, ne, or_
from pathlib import Path

from otel_train.bridge.wandb_file import SUFFIX, TransactionLog, recorded_exit, run_ids_of_files, wandb_files
from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.extras import install_command
from otel_train.how_far import tell
from otel_train.native import core
from otel_train.read.history import History, SourceError, first_names
from otel_train.read.row_spool import MOST, RowSpool, time_of
from otel_train.read.spooled_track import SpooledOrder


def is_wandb_file(path: Path) -> bool:
    """Tell whether a path is one of wandb's transaction logs, by its name."""
    return path.is_file() and path.suffix == SUFFIX


def read_file(path: Path) -> History:
    """Read the run of one file.

    Raises:
        SourceError: There is no step in it, or wandb is missing.
    """
    return _history(f"the wandb file {path}", "", [path])


def read_state(state: Path, run: str) -> History:
    """Read a run from a bridge's state directory.

    Args:
        state: The directory.
        run: The run's id; may be empty where there is one only.

    Raises:
        SourceError: The directory has no such run, or several where none was named, or wandb is missing.
    """
    run, files = files_of(state, run)
    return _history(f"the wandb files in {state}", run, files)


def files_of(state: Path, run: str) -> tuple[str, list[Path]]:
    """Return a run's id, and its files in a bridge's state directory; arguments and errors as of `read_state`."""
    from otel_train.bridge import safe_id  # noqa: PLC0415

    run_ids = _run_ids(state)
    if not run:
        if len(run_ids) != 1:
            names = first_names(run_ids) or "there is none"
            raise SourceError(f"{state} holds {len(run_ids)} runs; give one as --run: {names}")
        run = run_ids[0]
    files = wandb_files(state, run)
    if not files:
        raise SourceError(f"{state} holds no wandb file of run {run} ({safe_id(run)}); it has {', '.join(run_ids)}")
    return run, files


def prepend_older_steps(history: History, state: Path) -> None:
    """Add the cluster's steps that the rings have overwritten, from a bridge's files, before those of the rings."""
    first = history.cluster.first_own()
    spool = spooled(wandb_files(state, history.run_id), before=first)
    if not len(spool):
        return
    order = _ordered(spool)
    for step, time_ns, values in history.cluster.rows():
        spool.add(step, time_ns, values)
        (order.merge if step in history.cluster.merged else order.add)(len(spool) - 1)
    history.cluster = order.track()
    history.source += f" and, before step {first}, the wandb files in {state}"


def _run_ids(state: Path) -> list[str]:
    """Return the ids of a bridge's runs: as jobs gave them where its inbox is there, else those of wandb."""
    from otel_train.bridge import BridgeError, InboxReader  # noqa: PLC0415

    try:
        with InboxReader.open(state) as inbox:
            return inbox.run_ids()
    except BridgeError:
        return run_ids_of_files(state)


def _history(source: str, run: str, files: Sequence[Path]) -> History:
    history = History(source, run)
    spool = spooled_run(source, files)
    history.cluster = _ordered(spool).track()
    history.infer_from_cluster()
    newest = max(files, key=lambda file: file.parent.name.removeprefix("offline-"))
    history.exit_code = recorded_exit(newest) or None  # 0 stands for a bridge's own end too
    return history


def _ordered(spool: RowSpool) -> SpooledOrder:
    """Order rows as the run has them; an attempt's row of a step that it had is of values logged beside the steps."""
    order, ordinals, steps, attempts = SpooledOrder(spool), spool.ordinals, spool.steps, spool.attempts
    numbers: Sequence[int] = range(len(spool))
    if not all(map(le, ordinals, ordinals[1:])):
        numbers = sorted(numbers, key=ordinals.__getitem__)
        steps = array("q", map(steps.__getitem__, numbers))
        attempts = array("d", map(attempts.__getitem__, numbers))
    if steps and steps[0] >= 0 and all(map(lt, steps, steps[1:])):
        order.add_all(numbers)
        return order
    # Where another attempt begins, or the steps don't grow; in between all rows are alike.
    cuts = compress(range(1, len(steps)), map(or_, map(ne, attempts, attempts[1:]), map(ge, steps, steps[1:])))
    begin, attempt, newest = 0, math.nan, -1
    for end in chain(cuts, [len(steps)] if steps else []):
        if attempts[begin] != attempt:
            attempt, newest = attempts[begin], -1
            order.begin_attempt()
        own = bisect_right(steps, newest, begin, end)
        for row in numbers[begin:own]:
            order.merge(row)
        if own < end:
            order.add_all(numbers[own:end])
            newest = steps[end - 1]
        begin = end
    return order


def spooled_run(source: str, files: Iterable[Path]) -> RowSpool:
    """Return the rows of a run that has some, of each step.

    Args:
        source: What an error calls the files.
        files: The run's.

    Raises:
        SourceError: There is no row with a step, or wandb is missing.
        WandbFileError: A file is damaged.
    """
    spool = spooled(files)
    if not len(spool):
        raise SourceError(f"{source}: no row with {rows.STEP.wandb_key} is in there yet")
    return spool


def spooled(files: Iterable[Path], before: float = math.inf) -> RowSpool:
    """Return the rows of a run that have a step, of one before another one.

    Raises:
        SourceError: wandb is missing.
        WandbFileError: A file is damaged.
    """
    spool = RowSpool()
    try:
        for file in files:
            _add_rows(spool, file, min(before, MOST))
    except ImportError as error:
        raise SourceError(f"wandb files need {error.name}, which is missing: {install_command('bridge')}") from error
    return spool


def _add_rows(spool: RowSpool, file: Path, before: float) -> None:
    """Add a file's rows of a step before another one."""
    size = file.stat().st_size

    def take(data: memoryview, position: int) -> int:
        tell("bytes read", log.position, size)
        return spool.take(data, position, before=before)

    with TransactionLog(file, take if core is not None else None) as log:
        for row in log.rows():
            tell("bytes read", log.position, size)
            spool.know(row.values)
            step = row.values.get(rows.STEP.wandb_key)
            if isinstance(step, int | float) and -MOST < step < before:
                values = _numbers(row.values)
                attempt = values.get(ATTEMPT_KEY, math.nan)
                time_ns = time_of(row.timestamp)
                ordinal = round(max(-MOST, min(row.ordinal, MOST)))
                spool.add(round(step), time_ns, values, ordinal=ordinal, attempt=attempt)
    tell("bytes read", 1, 1)


def _numbers(values: dict[str, object]) -> dict[str, float]:
    return {
        key: _float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number that no float holds
        return math.copysign(math.inf, value > 0 or -1)
