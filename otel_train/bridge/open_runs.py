"""Decide which runs wandb has open: all that get rows where there is room, else in turns. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MOST_OPEN = 256
"""Runs that are open at once: each takes two descriptors here, three and half a megabyte in wandb's process."""
DESCRIPTORS = 3
"""Descriptors that an open run takes in a process, at most."""
OTHER_DESCRIPTORS = 150
"""Descriptors that are left for everything else: the senders' connections, the inbox, wandb's own."""
IDLE_SECONDS = 600.0
"""Seconds after which a run that got no row is finished; when it goes on it is opened again, with a new file."""
ENDED_SECONDS = 30.0
"""The same for a run whose job has ended."""
TURN_SECONDS = 30.0
"""Seconds for which a run stays open at least where more runs get rows than may be open."""


def most_open(descriptors: int) -> int:
    """Return how many runs may be open in a process with so many descriptors; a negative number is without a bound."""
    if descriptors < 0:
        return MOST_OPEN
    return max(1, min(MOST_OPEN, (descriptors - OTHER_DESCRIPTORS) // DESCRIPTORS))


@dataclass(slots=True)
class OpenRun:
    """A run that is open."""

    opened: float
    """Time of opening."""
    used: float
    """Time of its last row, or of opening."""
    written: int = -1
    """The ordinal of the last row that was given to the sink."""
    has_unwritten: bool = True
    """Whether it may have rows that were made and not given to the sink."""
    in_flight: dict[int, float] = field(default_factory=dict)
    """Time at which a row was written that is not durable yet, by its ordinal."""
    revision: int = 0
    """Revision of its job that the sink has been told."""
    looked: float = 0.0
    """Time of the last look at what is durable."""


class OpenRuns:
    """The open runs, and those that wait for their turn.

    Args:
        most: The number of runs that are open at once.
        idle: Seconds without a row after which a run is idle.
        turn: Seconds for which a run that is not idle stays open.
    """

    def __init__(self, most: int = MOST_OPEN, idle: float = IDLE_SECONDS, turn: float = TURN_SECONDS) -> None:
        self._most, self._idle, self._turn = most, idle, turn
        self._runs: dict[str, OpenRun] = {}
        self._queue: dict[str, None] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __getitem__(self, run_id: str) -> OpenRun:
        return self._runs[run_id]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._runs))

    def __len__(self) -> int:
        return len(self._runs)

    def admits(self, run_id: str, now: float) -> bool:
        """Tell whether a run may be opened now; if not, it stays in the queue.

        Where it may and there is no room, `surplus` names the run that has to be finished for it.
        """
        if len(self._runs) < self._most:
            return True
        self._queue.setdefault(run_id)
        return next(iter(self._queue)) == run_id and self.surplus(now) is not None

    def surplus(self, now: float) -> str | None:
        """Return the run to finish for another one: the one that got no row for longest, or the one open longest.

        Returns:
            None where there is room, or where every run's turn still lasts.
        """
        if len(self._runs) < self._most:
            return None
        for since in ("used", "opened"):
            run_id = min(self._runs, key=lambda name: getattr(self._runs[name], since))
            if now - getattr(self._runs[run_id], since) >= self._turn:
                return run_id
        return None

    def add(self, run_id: str, now: float) -> OpenRun:
        """Note that a run was opened."""
        self._queue.pop(run_id, None)
        self._runs[run_id] = OpenRun(now, now)
        return self._runs[run_id]

    def pop(self, run_id: str) -> OpenRun | None:
        """Note that a run is finished, or is not to be opened any more; return it where it was open."""
        self._queue.pop(run_id, None)
        return self._runs.pop(run_id, None)

    def idle(self, now: float, ended: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Return the runs that got no row for long, and whose rows are durable.

        Args:
            now: The present time.
            ended: Tells whether the job of a run has ended.
        """
        shortest = min(ENDED_SECONDS, self._idle)
        quiet = {run_id: now - run.used for run_id, run in self._runs.items() if not run.in_flight}
        return [
            run_id
            for run_id, seconds in quiet.items()
            if seconds >= self._idle or (seconds >= shortest and ended(run_id))
        ]

    def clear(self) -> None:
        """Note that no run is open any more."""
        self._runs.clear()
        self._queue.clear()
