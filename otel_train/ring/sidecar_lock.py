"""Agree on who serves a directory of rings: the process that holds its lock, then the one that has asked for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from enum import StrEnum
from pathlib import Path

from otel_train.descriptors import open_private
from otel_train.ring.writer_process import is_alive

LOCK_NAME = "sidecar.lock"
NEXT_NAME = "sidecar.next"
"""File of the process that would serve after the present one has left: pid, start time, of a session a number."""
_LOCKS = Path("/proc/locks")
_LONGEST = 200


class SidecarEnd(StrEnum):
    """Why a sidecar has ended, as it tells the session that started it."""

    TOLD = "told"
    """A signal told it to."""
    ANOTHER_SERVES = "another"
    """Another one serves the directory."""
    DONE = "done"
    """All is sent, or was given up."""


def take_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of a directory until it is closed; None where another process has it.

    Raises:
        OSError: The lock file can't be opened or made.
    """
    path = directory / LOCK_NAME
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):  # else the directory was cleaned a moment ago
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_served(directory: Path) -> bool:
    """Tell whether a sidecar holds the lock of a directory.

    Asking takes the lock for some microseconds, shared: a sidecar that begins tries it for longer than that.
    """
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_holder(directory: Path) -> int:
    """Return the pid of the process that holds the lock of a directory, as proc_locks(5) has it.

    Returns:
        0 where no process holds it, or none that can be seen from here: it may be in another pid namespace, and some
        file systems show other numbers there.
    """
    with contextlib.suppress(OSError, ValueError):
        status = (directory / LOCK_NAME).lstat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in _LOCKS.read_text(encoding="utf-8").splitlines():
            _, kind, _, access, pid, file, *_ = line.split()
            if (kind, access, file) == ("FLOCK", "WRITE", device):
                return max(0, int(pid))
    return 0


def ask_for_turn(directory: Path, claim: str) -> None:
    """Note that a process, which `claim` tells apart from all others, would serve the directory next."""
    with contextlib.suppress(OSError):
        path = directory / NEXT_NAME
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(claim)


def withdraw(directory: Path, claim: str) -> None:
    """Remove the note, unless it is another process's by now."""
    with contextlib.suppress(OSError):
        path = directory / NEXT_NAME
        if path.read_text() == claim:
            path.unlink()


def turn_is_asked_for(directory: Path) -> bool:
    """Tell whether a process that lives has asked for its turn."""
    try:
        with (directory / NEXT_NAME).open() as file:
            pid, started, *_ = map(int, file.read(_LONGEST).split())
    except (OSError, ValueError):
        return False
    return is_alive(pid, started)
