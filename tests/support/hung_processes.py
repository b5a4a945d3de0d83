"""Run a program to its end, and where it does not come show where each of its processes was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def output_of(command: Sequence[str | Path], environment: Mapping[str, str], seconds: float) -> str:
    """Run a program until it has ended well, and return what it and its children printed.

    One that has not ended in time is ended; the error shows the Python stacks of it and of all its descendants.

    Args:
        command: The program and its arguments.
        environment: Its variables.
        seconds: Time after which it has failed.

    Raises:
        AssertionError: It failed, or did not end.
    """
    with subprocess.Popen(
        command,
        env={**environment, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            hung = _with_descendants(process.pid)
            for pid in reversed(hung):  # a launcher is the last, for it would end those that have not told yet
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGABRT)
            output, _ = process.communicate()
            raise AssertionError(f"{len(hung)} processes had not ended after {seconds} s:\n{output}") from None
        finally:
            process.terminate()  # torchrun ends its ranks, which a killed one leaves behind
    assert process.returncode == 0, output
    return output


def _with_descendants(pid: int) -> list[int]:
    """Return a process, its children and theirs, parents first."""
    found = [pid]
    for parent in found:  # grows meanwhile
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found
