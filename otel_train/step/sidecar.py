"""Start the node's sidecar process, and wait for it at the end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

LOG_NAME = "sidecar.log"


def start_sidecar(directory: Path, rank_interval: float) -> subprocess.Popen[bytes] | None:
    """Start a sidecar for the rings in `directory`; it leaves by itself when another one serves them to the end.

    It is a session of its own, so that what ends the ranks (torchrun, a Ctrl-C) does not end it before it has sent
    what they recorded.

    Returns:
        The process, or None when it could not be started, which is logged.
    """
    command = [sys.executable, "-m", "otel_train.sidecar", str(directory)]
    command += ["--parent", str(os.getpid()), "--rank-interval", f"{rank_interval:g}"]
    try:
        log = os.open(directory / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
            )
        finally:
            os.close(log)
    except OSError as error:
        logger.warning("telemetry: the sidecar can't be started (%s); what is recorded stays in %s", error, directory)
        return None


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until `condition()` holds, `timeout` seconds at most, and tell whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
