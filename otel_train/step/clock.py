"""The time stamps of a session's steps, and what of an interval was spent on what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from otel_train.catalogue import Phase
from otel_train.native.records import Clock

if TYPE_CHECKING:
    from otel_train.ring import RingWriter

T = TypeVar("T")
# Looked up once: an attribute of an enum has a cost.
_COMPUTE, _DATA = Phase.COMPUTE, Phase.DATA

Interval = tuple[float, int, float]
"""Length of an interval: seconds, steps of training (0 where that is unknown, and then the rest is 0 too), and seconds
of it that were spent waiting for data. A plain tuple: making a named one takes as long as writing a record."""


LOG_APART_NS = 1_000_000
"""Nanoseconds between the time stamps of values beside the steps and those before them: stores that count in
milliseconds keep one value of a series in each."""


class StepClock(Clock):
    """The clock of a session; an interval begins when it is made, and when the one before has ended.

    native/record.c has `stamp` and `end_interval` too.
    """

    def __init__(self) -> None:
        self.newest = self.began = self.stamped = time.perf_counter()
        self.last_time_ns, self.last_step = 0, -1
        self.wait = 0.0

    def stamp(self, now: float) -> int:
        """Return the wall clock's time; after it was set back, a later one than the last all the same.

        Until the clock has caught up, stamps advance by half of the seconds that have really gone by: points that share
        a millisecond would be one to Prometheus.

        Args:
            now: The present time by the steady clock, at which a step has ended.
        """
        time_ns = time.time_ns()
        half_ns = (now - self.stamped) * 5e8
        if time_ns - self.last_time_ns <= half_ns:
            time_ns = self.last_time_ns + max(1, int(half_ns))
        self.newest = self.stamped = now
        self.last_time_ns = time_ns
        return time_ns

    def stamp_beside(self, now: float) -> int:
        """Return the time stamp of values beside the steps: as `stamp`, in a later millisecond than the last stamp.

        Args:
            now: The present time by the steady clock.
        """
        newest, least_ns = self.newest, self.last_time_ns + LOG_APART_NS
        self.last_time_ns = max(self.stamp(now), least_ns)
        self.newest = newest
        return self.last_time_ns

    def end_interval(self, now: float, step: int) -> Interval:
        """End the interval and return how long it was.

        Steps are those that training made, not the calls that told of them: who logs each tenth step made ten. How many
        the first interval had is certain where it ends with the first step; otherwise the job may be a resumed one.

        Args:
            now: The present time by the steady clock.
            step: The step that ends.
        """
        steps = 1 if step <= 1 else 0
        if self.last_step >= 0:
            steps = step - self.last_step
        interval = (now - self.began, steps, self.wait) if steps else (0.0, 0, 0.0)
        self.began, self.last_step, self.wait = now, step, 0.0
        return interval

    def timed(self, loader: Iterable[T], ring: Callable[[], RingWriter | None]) -> Iterator[T]:
        """Yield what `loader` yields; what its consumer waits for it is waiting for data.

        Args:
            loader: Any iterable.
            ring: Returns the ring that tells in which phase the training thread is.
        """
        iterator = iter(loader)
        while True:
            told = ring()
            if told is not None:
                told.enter(_DATA)
            begin = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                if told is not None:
                    told.enter(_COMPUTE)
            self.wait += time.perf_counter() - begin
            yield batch


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until `condition()` holds, `timeout` seconds at most, and tell whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
