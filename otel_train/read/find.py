"""Find the rings of a job: in a given directory, in a smoke run's folder, or the newest job's on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.ring import default_bases, ring_files


def find_job(directory: Path | None = None, *, bases: tuple[Path, ...] | None = None) -> Path:
    """Return the directory of a job's rings.

    Args:
        directory: Rings, or a folder with `rings` in it, or one with such directories in it; None for the newest job
            of this user.
        bases: Directories of this user's jobs; in memory by default, or in the directory for temporary files.

    Raises:
        ConfigurationError: There is no such directory.
        OtelTrainError: There is no ring.
    """
    if directory is None:
        bases = bases or tuple(default_bases())
        jobs = [directory for base in bases for directory in _below(base)]
        if not jobs:
            searched = " or ".join(map(str, bases)) or "memory"
            raise OtelTrainError(f"no job of yours has rings in {searched}; start one, or give its OTEL_TRAIN_RING_DIR")
        return max(jobs, key=_newest)
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is not a directory; give the job's OTEL_TRAIN_RING_DIR, or none at all")
    if ring_files(directory):
        return directory
    jobs = list(_below(directory))
    if not jobs and (directory / "wandb").is_dir():
        raise OtelTrainError(f"{directory} holds no ring, but wandb files: `otel-train doctor` and others read those")
    if not jobs:
        raise OtelTrainError(f"{directory} holds no ring; wait for the job's first step, or give another directory")
    return max(jobs, key=_newest)


def _below(base: Path) -> Iterator[Path]:
    """Yield the directories in a directory that hold rings."""
    try:
        inside = [path for path in base.iterdir() if path.is_dir()]
    except OSError:
        return
    for path in inside:
        try:
            if ring_files(path):
                yield path
        except OSError:  # another user's
            continue


def _newest(directory: Path) -> int:
    """Return the newest attempt: a ring's name ends with it, and it is the time of the job's start."""
    attempts = [path.stem.rpartition("-")[2] for path in ring_files(directory)]
    return max((int(text) for text in attempts if text.isascii() and text.isdigit()), default=0)
