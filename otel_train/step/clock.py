"""The time stamps of a session's steps, and what of an interval was spent on what."""

from __future__ import annotations

import time

Interval = tuple[float, int, float]
"""Length of an interval: seconds, steps of training (0 where that is unknown, and then the rest is 0 too), and seconds
of it that were spent waiting for data. A plain tuple: making a named one takes as long as writing a record."""


class StepClock:
    """The clock of a session; an interval begins when it is made, and when the one before has ended."""

    def __init__(self) -> None:
        self.newest = self._began = time.perf_counter()
        """Time at which the newest step ended, by the steady clock."""
        self._last_time_ns = 0
        self.wait = 0.0
        """Seconds of the interval that were spent waiting for data."""
        self.last_step: int | None = None
        """Step that the interval before ended with; None in the first."""

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

    def end_interval(self, now: float, step: int) -> Interval:
        """End the interval and return how long it was.

        Steps are those that training made, not the calls that told of them: who logs each tenth step made ten. How many
        the first interval had is certain where it ends with the first step; otherwise the job may be a resumed one.

        Args:
            now: The present time by the steady clock.
            step: The step that ends.
        """
        steps = 1 if step <= 1 else 0
        if self.last_step is not None:
            steps = step - self.last_step
        interval = (now - self._began, steps, self.wait) if steps else (0.0, 0, 0.0)
        self._began, self.last_step, self.wait = now, step, 0.0
        return interval
