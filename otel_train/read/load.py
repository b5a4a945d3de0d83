"""Read a run from any source: rings, a run's output folder, a bridge's wandb files, Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from otel_train.bridge.wandb_file import SUFFIX, WANDB_FOLDER
from otel_train.exceptions import OtelTrainError
from otel_train.paths import expanded
from otel_train.read.find import find_job
from otel_train.read.history import History, SourceError
from otel_train.read.rings import OtherRunError, RingJob
from otel_train.read.wandb import is_wandb_file, prepend_older_steps, read_file, read_state
from otel_train.read.whole_rings import read_rings
from otel_train.ring import ring_files

RINGS_FOLDER = "rings"
"""Folder of the rings in a smoke run's output."""
STATE_FOLDERS = (".", "bridge")
"""Folders, below a run's output or a bridge's state directory, that may have wandb files."""


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
        if is_wandb_file(path):
            return Loaded(read_file(path))
        if path.is_dir():
            return _load_directory(path, run)
    except SourceError:
        raise
    except (OtelTrainError, OSError) as error:
        raise SourceError(str(error)) from error
    raise SourceError(f"{path} is neither a directory nor a {SUFFIX} file nor an http(s) address; see --help")


def state_of(path: Path) -> Path | None:
    """Return the bridge's state directory that a directory is or has; None where there is none."""
    return next((path / name for name in STATE_FOLDERS if (path / name / WANDB_FOLDER).is_dir()), None)


def _load_directory(path: Path, run: str) -> Loaded:
    rings = next((folder for folder in (path, path / RINGS_FOLDER) if ring_files(folder)), None)
    state = state_of(path)
    job = None
    try:
        job = read_rings(rings, run) if rings is not None else None
    except OtherRunError:
        if state is None:
            raise
    if state is None:
        if job is None:
            raise SourceError(f"{path} holds no rings and no {WANDB_FOLDER} folder; give OTEL_TRAIN_RING_DIR's")
        return Loaded(job.history, job)
    if job is None:
        return Loaded(read_state(state, run))
    prepend_older_steps(job.history, state)
    return Loaded(job.history, job)
