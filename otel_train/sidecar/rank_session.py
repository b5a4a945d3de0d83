"""The sidecar's end of the connection with the rank that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from otel_train.ring import is_alive, start_time


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
    """Give up what was inherited from the rank: blocked signals, but for those that are the rank's, and file modes."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
