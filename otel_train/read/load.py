"""Read a run from wherever it is: rings, a run's output folder, a bridge's wandb files, Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from otel_train.catalogue import rows
from otel_train.exceptions import OtelTrainError
from otel_train.extras import install_command
from otel_train.paths import expanded
from otel_train.read.find import find_job
from otel_train.read.history import History, SourceError, Track
from otel_train.read.rings import RingJob
from otel_train.ring import ring_files

RINGS_FOLDER = "rings"
"""Of a smoke run's output."""
WANDB_FOLDER, WANDB_SUFFIX = "wandb", ".wandb"
STATE_FOLDERS = (".", "bridge")
"""Where a run's output or a bridge's state directory has its wandb files."""
_MOST_NAMED = 10
"""Runs that an error names at most."""


@dataclass(slots=True)
class Loaded:
    """A run, and the rings of it where they are here."""

    history: History
    job: RingJob | None = None


def load(source: str = "", *, run: str = "") -> Loaded:
    """Read a run.

    Args:
        source: A directory with rings, a run's output folder, a bridge's state directory, a `.wandb` file, or the
            http(s) address of a Prometheus; empty for this user's newest job on this machine.
        run: The run's id, where the source holds several.

    Raises:
        SourceError: The source holds no run, several without `run`, or can't be read.
    """
    if source.startswith(("http://", "https://")):
        from otel_train.read.prometheus import read_prometheus  # noqa: PLC0415  # only where it is asked

        return Loaded(read_prometheus(source, run))
    try:
        path = expanded(source) if source else find_job()
        if path.is_file() and path.suffix == WANDB_SUFFIX:
            return Loaded(_wandb_history(f"the wandb file {path}", "", [path]))
        if path.is_dir():
            return _load_directory(path, run)
    except SourceError:
        raise
    except (OtelTrainError, OSError) as error:
        raise SourceError(str(error)) from error
    raise SourceError(f"{path} is no directory, no {WANDB_SUFFIX} file and no http(s) address; see --help")


def load_history(source: str, *, run: str = "") -> History:
    """Read a run's values; see `load`."""
    return load(source, run=run).history


def _load_directory(path: Path, run: str) -> Loaded:
    rings = next((each for each in (path, path / RINGS_FOLDER) if ring_files(each)), None)
    state = next((path / each for each in STATE_FOLDERS if (path / each / WANDB_FOLDER).is_dir()), None)
    job = RingJob(rings) if rings is not None else None
    if job is not None and run and job.history.run_id != run:
        if state is None:
            raise SourceError(f"{rings} holds run {job.history.run_id}, not {run}; leave --run out")
        job.close()
        job = None
    if state is None:
        if job is None:
            raise SourceError(f"{path} holds no rings and no {WANDB_FOLDER} folder; give OTEL_TRAIN_RING_DIR's")
        return Loaded(job.history, job)
    if job is None:
        return Loaded(_state_history(state, run))
    _prepend(job.history, state)
    return Loaded(job.history, job)


def _state_history(state: Path, run: str) -> History:
    """Read a run from a bridge's wandb files."""
    from otel_train.bridge import safe_id, wandb_files  # noqa: PLC0415  # loads protobuf and wandb

    known = _run_ids(state)
    if not run:
        if len(known) != 1:
            names = ", ".join(known[:_MOST_NAMED]) + (", ..." if len(known) > _MOST_NAMED else "")
            raise SourceError(f"{state} holds {len(known)} runs; give one as --run: {names or 'there is none'}")
        run = known[0]
    files = wandb_files(state, run)
    if not files:
        raise SourceError(f"{state} holds no wandb file of run {run} ({safe_id(run)}); it has {', '.join(known)}")
    return _wandb_history(f"the wandb files in {state}", run, files)


def _run_ids(state: Path) -> list[str]:
    """Return the ids of a bridge's runs: as jobs gave them where its inbox is there, else those of wandb."""
    from otel_train.bridge import BridgeError, InboxReader  # noqa: PLC0415

    try:
        with InboxReader.open(state) as inbox:
            return inbox.run_ids()
    except BridgeError:
        files = (state / WANDB_FOLDER).glob(f"*run-*/run-*{WANDB_SUFFIX}")
        return sorted({file.stem.removeprefix("run-") for file in files})


def _wandb_history(source: str, run: str, files: Iterable[Path]) -> History:
    """Read the rows of a run's files in their order, whichever file they are in."""
    history = History(source, run)
    for step, time_ns, values in _wandb_rows(files):
        history.cluster.add(step, time_ns, values)
    if not history.cluster.steps:
        raise SourceError(f"{source}: no step is in there yet")
    prefix = rows.MODALITY_TARGET.wandb_key + "/"
    history.modalities = tuple(key.removeprefix(prefix) for key in history.cluster.values if key.startswith(prefix))
    ranks = history.cluster.last(rows.RANKS.wandb_key)
    history.world_size = 0 if math.isnan(ranks) else round(ranks)
    return history


def _wandb_rows(files: Iterable[Path]) -> list[tuple[int, int, dict[str, float]]]:
    """Return (step, time, values) of each row, in the order of the rows' places in their run."""
    try:
        from otel_train.bridge import read_history  # noqa: PLC0415

        found = sorted((row for file in files for row in read_history(file)), key=lambda row: row.ordinal)
    except ImportError as error:
        raise SourceError(f"wandb files need {error.name}, which is missing: {install_command('bridge')}") from error
    return [
        (round(step), round(row.timestamp * 1e9), _numbers(row.values))
        for row in found
        if isinstance(step := row.values.get(rows.STEP.wandb_key), int | float) and math.isfinite(step)
    ]


def _numbers(values: dict[str, object]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _prepend(history: History, state: Path) -> None:
    """Put the cluster's steps that the rings have overwritten before those that they hold."""
    from otel_train.bridge import wandb_files  # noqa: PLC0415

    first = history.cluster.steps[0] if history.cluster.steps else math.inf
    older = Track()
    for step, time_ns, values in _wandb_rows(wandb_files(state, history.run_id)):
        if step < first:
            older.add(step, time_ns, values)
    if not older.steps:
        return
    for step, time_ns, values in history.cluster.rows():
        older.add(step, time_ns, values)
    history.cluster = older
    history.source += f" and, before step {first}, the wandb files in {state}"
