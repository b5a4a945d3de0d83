"""Run a process beside this one, its output in a file, ended with the block that needs it."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRACE = 15.0
"""Seconds that a process may take to end after SIGTERM."""
_ERROR = re.compile(r"\w(Error|Exception|Interrupt)\b: \S")
_BY_TORCHRUN = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/", re.MULTILINE)
"""Beginning of torchrun's own lines, which say only that some rank failed."""


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
    """Wait for a process's end, for so many seconds at most, and tell whether it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def cause(log: Path) -> str:
    """Return a log's last error or, without one, its last line, and the log's name, all on one line."""
    text = _BY_TORCHRUN.split(log.read_text(errors="replace"))[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = ([line for line in lines if _ERROR.search(line)] or lines or ["it is empty"])[-1]
    return f"{last:.300} (its log: {log})"
