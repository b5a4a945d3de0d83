"""Have a sidecar for the rings of a node while a session is open: start it, and again when it dies, and hear of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import socket
import subprocess
import threading
import time
import weakref
from pathlib import Path

from otel_train.delivery import STATUS_NAME, read_status
from otel_train.descriptors import standard_descriptors
from otel_train.endpoint import Endpoint
from otel_train.log_once import OnceLogger
from otel_train.ring import SidecarEnd, ask_for_turn, is_alive, is_served, start_time, withdraw
from otel_train.step.sidecar_launch import launch

logger = logging.getLogger(__name__)

LOG_NAME = "sidecar.log"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the first start after an unexpected end, and between two of them at most."""
LOOK = 1.0
"""Seconds between two looks at whether the sidecar lives and what it says of its receiver."""
LONGEST_TURN = 20.0
"""Seconds after which a sidecar that still serves the directory is another job's: an earlier session's makes way."""
LONGEST_JOIN = 0.5
"""Seconds that `close` waits at most for a sidecar that has to be started once more."""
_TOLD, _ANOTHER_SERVES, _DIED, _RUNS = SidecarEnd.TOLD, SidecarEnd.ANOTHER_SERVES, "died", "runs"
"""Ends of a sidecar: by a signal, since another one serves the directory, otherwise; or not before the session."""
_numbers = itertools.count()
_ended: set[int] = set()
"""Sidecars whose end may have to be waited for."""


class SidecarProcess:
    """The sidecar for the rings in a directory, for as long as the session of the rank that owns this is open.

    One sidecar serves a directory, whoever started it: the one that holds the lock. One that finds it taken leaves, and
    is started again when the lock is free. It is detached, in a session of its own, so that what ends the ranks
    (torchrun, a Ctrl-C, Ray with all its children) does not end it before it has sent what they recorded.

    A thread hears by a socket that it has ended, and starts it again unless somebody told it to end. The other way
    round the sidecar hears by it that the session is closed, and leaves once everything is delivered. In a forked child
    there is no such thread.

    Args:
        directory: Where the rings are, and the sidecar's log.
        rank_interval: Seconds between two exports of a rank's own values.
    """

    def __init__(self, directory: Path, rank_interval: float) -> None:
        self._directory = directory
        self._rank_interval = rank_interval
        self._claim = f"{os.getpid()} {start_time(os.getpid())} {next(_numbers)}"
        self._closing = threading.Event()
        self._warnings = OnceLogger(logger)
        self._status_seen = (time.time_ns(), 0)
        self._connection: socket.socket | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """The process that runs, or the last one that did; 0 before the first has sent its own."""
        self._start_time = 0
        self._starts = False
        """Whether a sidecar was started that is not known to have ended; it is `pid` once that is known."""
        self._start(0)
        self._thread = threading.Thread(target=self._watch, name="otel_train-sidecar", daemon=True)
        self._thread.start()
        _OPEN.add(self)

    def close(self) -> None:
        """End the session: the sidecar leaves once all is delivered, and is started no more.

        One that was killed a moment ago is started now, for it has the last records to send.
        """
        self._closing.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(LONGEST_JOIN)
        _OPEN.discard(self)

    @property
    def serves(self) -> bool:
        """Whether a sidecar runs for the directory, or was started and still loads its libraries."""
        starts = is_alive(self.pid, self._start_time) if self.pid else self._starts
        return starts or is_served(self._directory)

    @property
    def connected(self) -> bool:
        """Whether the sidecar that this session has started runs, as far as it was heard of."""
        return self._connection is not None

    def _watch(self) -> None:
        pause, restarts = FIRST_PAUSE, 0
        while True:
            began = time.monotonic()
            end = self._follow()
            if end in (_TOLD, _RUNS):
                break
            if end == _DIED:
                if time.monotonic() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                self._closing.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                restarts += 1
            else:
                self._await_turn()
                if self._closing.is_set() and is_served(self._directory):
                    break  # it looks once more at the rings before it leaves
            self._start(restarts)
            if self._closing.is_set():
                break
        withdraw(self._directory, self._claim)
        self._disconnect()

    def _follow(self) -> str:
        """Wait until the sidecar has ended or the session is closed, and return how it ended."""
        connection = self._connection
        if connection is None:
            return _DIED
        received = b""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while True:
            ready = poll.poll(1000 * LOOK)
            data = b""
            if ready:
                with contextlib.suppress(OSError):
                    data = connection.recv(4096)
                received += data
            words = dict(line.split(" ", 1) for line in received.decode(errors="replace").split("\n")[:-1])
            self.pid, self._start_time = int(words.get("pid", 0)), int(words.get("started", 0))
            if "end" in words:
                self._reap()
                return _ANOTHER_SERVES if words["end"] == _ANOTHER_SERVES else _TOLD
            dead = bool(self.pid) and not is_alive(self.pid, self._start_time)
            if self._closing.is_set() and not dead:
                self._reap()
                return _RUNS
            if dead or (ready and not data):
                self._starts = False
                self._reap()
                self._tell_of_death(words.get("failed", ""))
                return _DIED
            self.tell_of_delivery(since_start=True)

    def _await_turn(self) -> None:
        """Wait until no other sidecar serves the directory, or the session is closed."""
        self._disconnect()
        ask_for_turn(self._directory, self._claim)
        began = time.monotonic()
        while is_served(self._directory) and not self._closing.wait(LOOK):
            self.tell_of_delivery(since_start=False)
            if time.monotonic() - began > LONGEST_TURN:
                self._tell_of_another_address()

    def _tell_of_death(self, why: str) -> None:
        self._warnings.warn(
            f"died {why}",
            "telemetry: the sidecar %s; it is started again. Its log is %s",
            f"can't serve: {why}" if why else "was killed or has failed",
            self._directory / LOG_NAME,
        )

    def tell_of_delivery(self, *, since_start: bool = True) -> None:
        """Warn of each cause for which nothing is delivered, once.

        Args:
            since_start: Leave out what an earlier session's sidecar wrote.
        """
        with contextlib.suppress(OSError):
            changed_ns = (self._directory / STATUS_NAME).stat().st_mtime_ns
            began_ns, seen_ns = self._status_seen
            if changed_ns == seen_ns or (since_start and changed_ns < began_ns):
                return
            self._status_seen = began_ns, changed_ns
            status = read_status(self._directory)
            if status is not None and status.failing:
                self._warnings.warn(f"delivery {status.cause} {status.advice}", "telemetry: %s", status)

    def _tell_of_another_address(self) -> None:
        """Warn that the sidecar of another job, which goes on, sends this one's values somewhere else."""
        status, own = read_status(self._directory), str(Endpoint.read())
        if status is not None and status.address and status.address != own:
            self._warnings.warn(
                "address",
                "telemetry: the sidecar of another job serves %s and sends to %s, not to %s; give each job a directory "
                "of its own, OTEL_TRAIN_RING_DIR",
                self._directory,
                status.address,
                own,
            )

    def tell_what_remains(self, count: int) -> None:
        """Say at the end of the session that records are not acknowledged yet, and what becomes of them."""
        self.tell_of_delivery()
        status = read_status(self._directory)
        if not self.serves:
            logger.warning(
                "telemetry: no sidecar runs; %d records remain in %s: `otel-train send %s` sends them",
                count,
                self._directory,
                self._directory,
            )
        else:
            logger.log(
                logging.INFO if status is not None and not status.failing else logging.WARNING,
                "telemetry: %d records are not acknowledged yet; the sidecar goes on trying for an hour. Its log is %s",
                count,
                self._directory / LOG_NAME,
            )

    def _start(self, restarts: int) -> None:
        withdraw(self._directory, self._claim)
        self._disconnect()
        self.pid, self._starts = 0, False
        arguments = [str(self._directory.absolute()), "--owner", f"--rank-interval={self._rank_interval:g}"]
        arguments += [f"--parent={os.getpid()}", f"--restarts={restarts}"]
        try:
            with standard_descriptors():
                self._connection, its_end = socket.socketpair()
                with its_end:
                    self._launcher = launch(arguments, self._directory / LOG_NAME, its_end)
            self._starts = True
        except OSError as error:
            self._disconnect()
            self._warnings.warn(
                "start",
                "telemetry: the sidecar can't be started (%s); what is recorded stays in %s",
                error,
                self._directory,
            )

    def _reap(self) -> None:
        if self._launcher is not None:
            self._launcher.wait()
            self._launcher = None
        if self.pid:
            _ended.add(self.pid)
        for pid in list(_ended):
            # Where this process is a container's first one, a sidecar is its child after all.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            _ended.discard(pid)

    def _disconnect(self) -> None:
        """Close the connection, which tells a sidecar that the session is over."""
        self._reap()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def leave_to_parent(self) -> None:
        """Give up a forked child's copy of the connection; its parent goes on with its own."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._launcher is not None:
            self._launcher.returncode = 0  # not this process's to wait for


_OPEN: weakref.WeakSet[SidecarProcess] = weakref.WeakSet()


def _leave_forked_child() -> None:
    for process in list(_OPEN):
        process.leave_to_parent()


os.register_at_fork(after_in_child=_leave_forked_child)
