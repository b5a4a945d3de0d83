"""End wandb's own processes: one that a killed bridge has left would go on writing to the same runs, one may hang."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from otel_train.bridge.wandb_file import SUFFIX

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""Seconds in which wandb's process ends by itself after its parent has ended."""
KILL_SECONDS = 5.0


def end_writers(folder: Path, *, grace: float = GRACE_SECONDS) -> None:
    """Wait until no other process has a run's file below `folder` open for writing; kill those that stay.

    What is durable can be read only when no process adds to it. The caller must own the folder: every process that
    writes there is wandb then.

    Args:
        folder: The folder with wandb's files; it need not exist.
        grace: Seconds in which they may end by themselves.
    """
    begin = time.monotonic()
    killed: set[int] = set()
    while writers := set(writing_processes(folder.resolve())):
        waited = time.monotonic() - begin
        if waited > grace + KILL_SECONDS:
            logger.error("processes %s still write in %s; rows may come twice", sorted(writers), folder)
            return
        if waited >= grace:
            for pid in writers - killed:
                logger.warning("wandb's process %d is killed: its bridge is gone, or it hangs", pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= writers
        time.sleep(0.05)


def writing_processes(folder: Path) -> Iterator[int]:
    """Yield the pids of other processes of this user that have a run's file below the folder open for writing."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and _writes(process, f"{folder}/"):
            yield int(process.name)


def is_written(path: Path) -> bool:
    """Tell whether a process of this user, this one included, has a file open for writing."""
    return any(process.name.isdigit() and _writes(process, str(path.resolve())) for process in Path("/proc").iterdir())


def _writes(process: Path, prefix: str) -> bool:
    try:
        for descriptor in (process / "fd").iterdir():
            target = descriptor.readlink()
            if target.suffix == SUFFIX and str(target).startswith(prefix) and _for_writing(process, descriptor.name):
                return True
    except OSError:  # it ended just now, or is another user's
        pass
    return False


def _for_writing(process: Path, descriptor: str) -> bool:
    for line in (process / "fdinfo" / descriptor).read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
