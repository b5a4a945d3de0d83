"""A job in a test's Slurm, and what its ranks tell of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_until

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


class SlurmJob:
    """A job that was submitted.

    Args:
        command: Runs one of Slurm's commands and returns its output.
        number: Its id.
        home: Folder in which its ranks write.
    """

    def __init__(self, command: Callable[..., str], number: int, home: Path) -> None:
        self.command = command
        self.number = number
        self.home = home

    @property
    def log(self) -> Path:
        """Output of the batch script and its steps."""
        return self.home / "job.log"

    @property
    def stop(self) -> Path:
        """The file that tells the ranks to stop."""
        return self.home / "stop"

    def task(self, number: int) -> SlurmJob:
        """Return one of its array's tasks, whose ranks write in a folder of that name."""
        return SlurmJob(self.command, self.number, self.home / str(number))

    def states(self) -> list[str]:
        """Return its state, or those of its array's tasks."""
        shown = self.command("scontrol", "--oneliner", "show", "job", self.number)
        return re.findall(r"\bJobState=(\S+)", shown)

    def starts(self, rank: int) -> list[list[int]]:
        """Return for each start of a rank the steps that it has ended; each begins at step 1."""
        times = self.home / f"rank{rank}.times"
        text = times.read_text() if times.exists() else ""
        starts: list[list[int]] = []
        for line in text[: text.rfind("\n") + 1].splitlines():
            step = int(line.split()[0])
            if step == 1:
                starts.append([])
            starts[-1].append(step)
        return starts

    def recorded(self, ranks: int = 2) -> list[int]:
        """Return for each start how many steps all ranks have ended."""
        return [min(len(steps) for steps in same) for same in zip(*map(self.starts, range(ranks)), strict=False)]

    def run_ids(self) -> set[str]:
        """Return the ids of the runs that its ranks say that they belong to."""
        return {line for path in self.home.glob("rank*.run") for line in path.read_text().splitlines()}

    def reach(self, step: int, *, start: int = 1, seconds: float = 280) -> None:
        """Wait until all ranks have made that step, in the so-manyth start of the job."""

        def reached() -> bool:
            recorded = self.recorded()
            return len(recorded) >= start and recorded[-1] >= step

        wait_until(reached, seconds, f"step {step} of job {self.number}", pause=0.1, log=self.log)

    def end(self, seconds: float = 240) -> list[str]:
        """Wait until it has ended on all nodes, with its epilogs, and return its states."""
        wait_until(
            lambda: all(state in OVER for state in self.states()),
            seconds,
            f"the end of job {self.number}",
            pause=0.5,
            log=self.log,
        )
        return self.states()
