"""A program that is started, killed and started again, always by the same command, its output in one file."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from otel_train.smoke.child_process import GRACE, ended_within


class Program:
    """A program beside the tests.

    Args:
        command: What starts it.
        log: Where it writes, start after start.
        environment: Its environment.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.log = log
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process, which was started."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment
            )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int | None:
        """End it in order and return its exit code; one that does not follow is killed."""
        if self.process is None:
            return None
        self.process.terminate()
        if not ended_within(self.process, 2 * GRACE):
            self.kill()
        return self.process.returncode
