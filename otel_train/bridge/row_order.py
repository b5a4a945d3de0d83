"""Decide which steps of a run get their rows now, so that rows are in the order of their steps whatever came first.

A sidecar numbers an attempt's records of the cluster's values, so that a missing one is certain, not guessed. Complete
steps of a sender without numbers wait a little for earlier ones. Pure: what arrived and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

QUIET_LINGERS = 10
"""Multiple of `linger_ns` for which an attempt must be quiet until the first row of the next one is made."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A step whose row is not made yet."""

    id: int
    attempt: int
    step: int | None
    number: int | None
    """Index of its record in the attempt, the first is 1; None where the sender does not tell, or did not yet."""
    time_ns: int
    expected: int | None
    arrived: int
    first_ns: int
    last_ns: int
    together: str | None
    """Its points where they are one entry, as `together.points` has them, and were read."""

    @property
    def order(self) -> tuple[int, int]:
        """Key by which the rows of a run are in order."""
        return self.attempt, self.time_ns

    @property
    def complete(self) -> bool:
        """Whether all of the step's points are there."""
        return self.step is not None and self.expected is not None and self.arrived >= self.expected


@dataclass(slots=True)
class Progress:
    """Progress of the rows of an attempt."""

    next_number: int = 1
    """The number that the next row has, where nothing is missing."""
    newest_ns: int = 0
    """The newest time stamp of a row."""
    floor_ns: int = 0
    """The time stamp up to which every step has its row, or is not waited for any more."""
    gap_ns: int = 0
    """Time at which a missing step was given up last."""
    last_ns: int = 0
    """Time at which points arrived last."""

    def advance(self, step: Pending, now_ns: int) -> None:
        """Note that a step gets its row now."""
        if step.number is not None and step.number >= self.next_number:
            if step.number > self.next_number:
                self.gap_ns = now_ns
            elif self.floor_ns == self.newest_ns < step.time_ns:
                self.floor_ns = step.time_ns
            self.next_number = step.number + 1
        self.newest_ns = max(self.newest_ns, step.time_ns)


@dataclass(frozen=True, slots=True)
class Due:
    """Rule for when a step's row is made; all times in nanoseconds."""

    settle_ns: int
    """Time from a step's first point on for which missing points of it, or missing steps before it, are waited for."""
    linger_ns: int
    """Time that a complete step without a number, or the first of an attempt, waits for an earlier one that is late."""
    since_ns: int = 0
    """Start of the bridge: what is missing could not come before."""

    def settled(self, step: Pending, now_ns: int) -> bool:
        """Tell whether a step waits no longer; a clock that was set back must not hold it for good, hence abs."""
        return abs(now_ns - max(step.first_ns, self.since_ns)) >= self.settle_ns

    def in_order(self, steps: Iterable[Pending], attempts: Mapping[int, Progress], now_ns: int) -> Iterator[Pending]:
        """Yield the first steps whose rows are due, up to the first that is not.

        Args:
            steps: Of one run, in the order of attempt and time stamp.
            attempts: The progress of the run's attempts; updated with what is yielded.
            now_ns: The present time.
        """
        for step in steps:
            progress = attempts[step.attempt]
            if not (self.settled(step, now_ns) or self._is_next(step, progress, attempts, now_ns)):
                return
            progress.advance(step, now_ns)
            yield step

    def _is_next(self, step: Pending, progress: Progress, attempts: Mapping[int, Progress], now_ns: int) -> bool:
        if not step.complete:
            return False
        if step.number is None:
            return abs(now_ns - step.last_ns) >= self.linger_ns
        if step.number > progress.next_number:
            return False
        return progress.newest_ns > 0 or self._is_first(step, attempts, now_ns)

    def _is_first(self, step: Pending, attempts: Mapping[int, Progress], now_ns: int) -> bool:
        """Tell whether an attempt may begin: no number tells where the one before ended, nor that there was one."""
        if abs(now_ns - step.first_ns) < self.linger_ns:
            return False
        earlier = (progress.last_ns for number, progress in attempts.items() if number < step.attempt)
        return all(abs(now_ns - last_ns) >= QUIET_LINGERS * self.linger_ns for last_ns in earlier)
