"""Keep the rings of jobs that have ended, for people to read: bounded by number, bytes and age."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from otel_train.exceptions import RingError
from otel_train.ring.directory import default_bases, is_ours, ring_files
from otel_train.ring.reader import RingReader
from otel_train.ring.sidecar_lock import LOCK_NAME, is_served
from otel_train.ring.writer import has_open_ring

KEPT_RUNS = 8
"""Runs that have ended and are delivered whose rings are kept in the default directory."""
KEPT_BYTES = 256 * 2**20
"""Bytes that they take at most; the newest run is kept all the same."""
KEPT_SECONDS = 7 * 86400.0
"""How long after a run's end its rings are kept."""
_EMPTY_SECONDS = 86400.0
"""Age from which a directory without a ring is not taken for one that a job is about to use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """State of a directory of rings: whether it may be removed, and its size."""

    directory: Path
    rings: int
    size: int
    """Bytes of its files."""
    ended: float
    """When the last of its ranks ended a step, or when a file changed; seconds since the epoch."""
    live: bool
    """Whether a rank's process lives and has not closed its ring, or a sidecar serves it."""
    undelivered: int
    """Records that were meant for a receiver which has not acknowledged them."""
    unreadable: int
    """Files that are not rings of this release."""

    @property
    def done(self) -> bool:
        """Whether only people who want to look at it still need it."""
        return not self.live and not self.undelivered and not self.unreadable


def look_at_run(directory: Path) -> KeptRun | None:
    """Return the state of a directory of rings; None where it holds anything else, or can't be read."""
    try:
        entries = list(directory.iterdir())
        status = directory.lstat()
        if status.st_uid != os.getuid() or not all(map(is_ours, entries)) or has_open_ring(directory):
            return None
        size = sum(entry.lstat().st_blocks * 512 for entry in entries)
        ended = max([status.st_mtime, *(entry.lstat().st_mtime for entry in entries)]) if entries else status.st_mtime
    except OSError:
        return None
    rings = ring_files(directory)
    live, undelivered, unreadable, newest = is_served(directory), 0, 0, 0
    for path in rings:
        try:
            with contextlib.closing(RingReader(path)) as reader:
                progress = reader.progress
                live = live or (not progress.closed and reader.writer_lives)
                newest = max(newest, progress.time_ns or reader.header.created_ns)
                if reader.facts.get("telemetry.delivers", True):
                    undelivered += max(0, progress.written - reader.cursor.position)
        except RingError:
            unreadable += 1
    return KeptRun(
        directory=directory,
        rings=len(rings),
        size=size,
        ended=newest / 1e9 if newest else ended,
        live=live,
        undelivered=undelivered,
        unreadable=unreadable,
    )


def beyond_bounds(runs: Sequence[KeptRun], now: float) -> Iterator[KeptRun]:
    """Yield the runs that are not kept: the oldest of those that have ended and are delivered."""
    kept = size = 0
    for run in sorted((run for run in runs if run.done), key=lambda run: -run.ended):
        age = now - run.ended
        if not run.rings:
            if age > _EMPTY_SECONDS:
                yield run
            continue
        if (kept and (kept >= KEPT_RUNS or size + run.size > KEPT_BYTES)) or age > KEPT_SECONDS:
            yield run
        else:
            kept, size = kept + 1, size + run.size


def remove_run(run: KeptRun) -> bool:
    """Remove a run's files, and its directory where we have made it; tell whether it is gone, not in use again."""
    directory = run.directory
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in [path for path in directory.iterdir() if is_ours(path)]:
            path.unlink(missing_ok=True)
        if directory.parent in default_bases():
            with contextlib.suppress(OSError):  # a job has begun to use it
                directory.rmdir()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def clean_beside(directory: Path) -> list[KeptRun]:
    """Remove the runs beyond the bounds next to a directory of the default one, and return them.

    A run that a job uses, or that is not delivered, is never removed.
    """
    if directory.parent not in default_bases():
        return []
    try:
        others = [path for path in directory.parent.iterdir() if path != directory and not path.is_symlink()]
    except OSError:
        return []
    runs = [run for path in others if (run := look_at_run(path)) is not None]
    return [run for run in beyond_bounds(runs, time.time()) if remove_run(run)]
