"""The time stamps of a session's steps, and what of an interval was spent on what."""

from __future__ import annotations

import time
from typing import NamedTuple


class Interval(NamedTuple):
    """How long an interval was."""

    seconds: float
    steps: int
    """How many steps it had."""
    wait: float
    """Seconds of it that were spent waiting for data."""


class StepClock:
    """The clock of a session; an interval begins when it is made, and when the one before has ended."""

    def __init__(self) -> None:
        self.newest = self._began = time.perf_counter()
        """When the newest step ended, by the steady clock."""
        self._last_time_ns = 0
        self.wait = 0.0
        """Seconds of the interval that were spent waiting for data."""
        self.steps = 0
        """Steps of the interval so far."""

    def stamp(self, now: float) -> int:
        """Return the wall clock's time; after it was set back, a later one than the last all the same.

        Until the clock has caught up, stamps advance by half of the seconds that have really gone by: points that share
        a millisecond would be one to Prometheus.

        Args:
            now: The present time by the steady clock.
        """
        time_ns = time.time_ns()
        half_ns = (now - self.newest) * 5e8
        if time_ns - self._last_time_ns <= half_ns:
            time_ns = self._last_time_ns + max(1, int(half_ns))
        self.newest = now
        self._last_time_ns = time_ns
        return time_ns

    def end_interval(self, now: float) -> Interval:
        """End the interval and return how long it was.

        Args:
            now: The present time by the steady clock.
        """
        interval = Interval(now - self._began, self.steps, self.wait)
        self._began, self.steps, self.wait = now, 0, 0.0
        return interval
