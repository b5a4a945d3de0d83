"""Read a run from wandb's files: a bridge's, by run, or a single one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from otel_train.bridge.wandb_file import SUFFIX, read_history, run_ids_of_files, wandb_files
from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.extras import install_command
from otel_train.read.history import History, SourceError, Track, first_names

LoggedStep = tuple[int, int, dict[str, float]]
"""Step, time in nanoseconds since the epoch, values by wandb key."""


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
    return _history(f"the wandb files in {state}", run, files)


def prepend_older_steps(history: History, state: Path) -> None:
    """Add the cluster's steps that the rings have overwritten, from a bridge's files, before those of the rings."""
    first = history.cluster.first_own()
    older = Track()
    _add_rows(older, (row for row in _rows(wandb_files(state, history.run_id)) if row[0] < first))
    if not older.steps:
        return
    older.extend(history.cluster)
    history.cluster = older
    history.source += f" and, before step {first}, the wandb files in {state}"


def _run_ids(state: Path) -> list[str]:
    """Return the ids of a bridge's runs: as jobs gave them where its inbox is there, else those of wandb."""
    from otel_train.bridge import BridgeError, InboxReader  # noqa: PLC0415

    try:
        with InboxReader.open(state) as inbox:
            return inbox.run_ids()
    except BridgeError:
        return run_ids_of_files(state)


def _history(source: str, run: str, files: Iterable[Path]) -> History:
    history = History(source, run)
    _add_rows(history.cluster, _rows(files))
    if not history.cluster.steps:
        raise SourceError(f"{source}: no step is in there yet")
    history.infer_from_cluster()
    return history


def _add_rows(track: Track, logged: Iterable[LoggedStep]) -> None:
    """Add rows in the order of a run; an attempt's row of a step that it had is of values logged beside the steps."""
    attempt, newest = math.nan, -1
    for step, time_ns, values in logged:
        of = values.get(ATTEMPT_KEY, math.nan)
        if of != attempt:
            attempt, newest = of, -1
            track.begin_attempt()
        if step > newest:
            track.add(step, time_ns, values)
            newest = step
        else:
            track.merge(step, time_ns, values)


def _rows(files: Iterable[Path]) -> list[LoggedStep]:
    """Return the rows of a run that have a step, in the order of the run, whichever file they are in."""
    try:
        in_order = sorted((row for file in files for row in read_history(file)), key=lambda row: row.ordinal)
    except ImportError as error:
        raise SourceError(f"wandb files need {error.name}, which is missing: {install_command('bridge')}") from error
    return [
        (round(step), round(row.timestamp * 1e9), _numbers(row.values))
        for row in in_order
        if isinstance(step := row.values.get(rows.STEP.wandb_key), int | float) and math.isfinite(step)
    ]


def _numbers(values: dict[str, object]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
