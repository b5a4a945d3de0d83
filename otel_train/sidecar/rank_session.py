"""The sidecar's end of the connection with the rank that started it, and its share of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import socket
import sys

from otel_train.ring import is_alive, start_time

NICENESS = 10
"""Lower priority than the ranks': the processor time that they leave is enough."""
_MOST_CPUS = 8192
SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237}
"""The system call's number by machine; the C library has no function for it."""


class RankSession:
    """The session that this sidecar was started for, at the standard input, which is empty from then on."""

    def __init__(self, parent: int) -> None:
        self._parent = parent, start_time(parent)
        self._socket = socket.socket(fileno=os.dup(sys.__stdin__.fileno() if sys.__stdin__ else 0))
        self._socket.setblocking(False)
        self._open = True
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        own = os.getpid()
        self.tell(f"started {start_time(own)}\npid {own}")

    def tell(self, line: str) -> None:
        """Send a line to the session, if it is still there."""
        with contextlib.suppress(OSError):
            self._socket.send(f"{line}\n".encode())

    def is_open(self) -> bool:
        """Tell whether the session is open and its process lives."""
        if self._open:
            with contextlib.suppress(BlockingIOError):
                try:
                    self._open = bool(self._socket.recv(64))
                except ConnectionError:
                    self._open = False
        return self._open and is_alive(*self._parent)


def drop_inherited_settings() -> None:
    """Give up what was inherited from the rank: its cores, priority, memory nodes, blocked signals and file modes.

    A rank that is bound to a core (mpirun does that to each) would be interrupted on it at every wake-up.
    """
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(_MOST_CPUS))  # of these the kernel gives those that the control group has
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    number = SET_MEMPOLICY.get(platform.machine())
    if number is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, 0, None, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
