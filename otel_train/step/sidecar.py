"""Run the node's sidecar process, start it again when it is killed, and wait for it at the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

LOG_NAME = "sidecar.log"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the first start after an end that nobody wanted, and between two of them at most."""
_WANTED_ENDS = (0, -signal.SIGTERM)
"""Exit codes of a sidecar that was told to end; the second one before it had begun to listen for that."""


class SidecarProcess:
    """The sidecar for the rings in a directory, for as long as the session of the rank that owns it is open.

    It leaves by itself when another one serves the rings to the end. It is a session of its own, so that what ends the
    ranks (torchrun, a Ctrl-C) does not end it before it has sent what they recorded.

    A thread waits for its end, in the kernel and at no cost, and starts it again unless somebody told it to end. In a
    forked child there is no such thread.

    Args:
        directory: Where the rings are, and the sidecar's log.
        rank_interval: Seconds between two exports of a rank's own values.
    """

    def __init__(self, directory: Path, rank_interval: float) -> None:
        self._directory = directory
        self._command = [sys.executable, "-m", "otel_train.sidecar", str(directory)]
        self._command += ["--parent", str(os.getpid()), "--rank-interval", f"{rank_interval:g}"]
        self._closing = threading.Event()
        self._said: set[str] = set()
        self.process = self._start(0)
        """The process that runs, or the last one that did; None when it could not be started."""
        threading.Thread(target=self._watch, name="otel_train-sidecar", daemon=True).start()

    def close(self) -> None:
        """Start it no more. One that was killed a moment ago is started now, for it has the last records to send."""
        self._closing.set()

    def _watch(self) -> None:
        pause, restarts = FIRST_PAUSE, 0
        while True:
            began = time.monotonic()
            code = None if self.process is None else self.process.wait()
            if code in _WANTED_ENDS or self._closing.is_set():
                return
            if code is not None:
                self._say(
                    "telemetry: the sidecar ended with %d; it is started again. Its log is %s",
                    code,
                    self._directory / LOG_NAME,
                )
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._closing.wait(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            restarts += 1
            self.process = self._start(restarts)

    def _start(self, restarts: int) -> subprocess.Popen[bytes] | None:
        try:
            log = os.open(self._directory / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                return subprocess.Popen(
                    [*self._command, "--restarts", str(restarts)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    close_fds=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            self._say(
                "telemetry: the sidecar can't be started (%s); what is recorded stays in %s", error, self._directory
            )
            return None

    def _say(self, message: str, *arguments: object) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *arguments)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until `condition()` holds, `timeout` seconds at most, and tell whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
