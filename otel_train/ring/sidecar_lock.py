"""Agree on the sidecar that serves a directory of rings: the one that holds its lock, then the session that asked."""

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
"""File of the session that would start a sidecar after the present one has left: pid, start time, a number."""
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


def ask_for_turn(directory: Path, claim: str) -> None:
    """Note that a session, which `claim` tells apart from all others, would start a sidecar of its own."""
    with contextlib.suppress(OSError):
        path = directory / NEXT_NAME
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(claim)


def withdraw(directory: Path, claim: str) -> None:
    """Remove the note, unless it is another session's by now."""
    with contextlib.suppress(OSError):
        path = directory / NEXT_NAME
        if path.read_text() == claim:
            path.unlink()


def turn_is_asked_for(directory: Path) -> bool:
    """Tell whether a session of a process that lives has asked for its turn."""
    try:
        with (directory / NEXT_NAME).open() as file:
            pid, started, *_ = map(int, file.read(_LONGEST).split())
    except (OSError, ValueError):
        return False
    return is_alive(pid, started)
