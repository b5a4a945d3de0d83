"""Run a process beside this one, its output in a file, ended with the block that needs it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRACE = 15.0
"""Seconds that a process may take to end after SIGTERM."""


@contextlib.contextmanager
def running_process(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`; at the end of the block it gets SIGTERM, and SIGKILL when it does not follow."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            if not ended_within(process, GRACE):
                process.kill()
                process.wait()


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process's end, that long at most, and tell whether it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def tail(log: Path, lines: int = 20) -> str:
    """Return the end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
