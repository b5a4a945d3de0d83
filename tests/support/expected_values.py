"""What an expression shows of a recorded run at any moment, in plain Python: what depends on no panel."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from otel_train.catalogue.series_names import ATTEMPT, RANK
from tests.support.recorded_runs import Attempt, Interval

FRAME, LOOKBACK, RATE = 600.0, 300.0, 60.0
"""Seconds over which a figure is taken, for which a sample is the present one, and of `$__rate_interval`."""
Values = dict[tuple[str, ...], float | None]
"""By the values of some labels; None stands for any number."""


class View:
    """A run as it is looked at.

    Args:
        attempts: Its attempts.
        start: The first moment, in seconds since the epoch.
        end: The last moment may be a little earlier.
        moments: How many moments there are.
    """

    def __init__(self, attempts: Sequence[Attempt], start: float, end: float, moments: int) -> None:
        self.attempts = attempts
        self.run = attempts[0].run
        self.start = start
        self.step = max(1, int((end - start) // moments))
        self.moments = [start + number * self.step for number in range(int((end - start) // self.step))]
        self.shown = min(3 * 86_400, int(end - start) // 2)
        """Seconds of `$__range`."""

    def nearest(self, moment: float) -> float:
        """Return the moment that an answer's rounded one is."""
        return self.moments[round((moment - self.start) / self.step)]


@dataclass(frozen=True)
class Expected:
    """What an expression shows."""

    labels: tuple[str, ...]
    compute: Callable[[View, float], Values]
    most: int = 0
    """Largest (or, if negative, smallest) values that are shown; 0 for all."""

    def agrees(self, pairs: Sequence[tuple[tuple[str, ...], float]], values: Values) -> bool:
        """Tell whether an answer is this."""
        count = min(abs(self.most) or len(values), len(values))
        if len(dict(pairs)) != len(pairs) or len(pairs) != count:
            return False
        if not all(key in values and alike(value, values[key]) for key, value in pairs):
            return False
        if count < len(values) and None not in values.values():
            numbers = sorted((value for value in values.values() if value is not None), reverse=self.most > 0)
            return all(map(alike, sorted((value for _, value in pairs), reverse=self.most > 0), numbers[:count]))
        return True


def alike(value: float, expected: float | None) -> bool:
    """Tell whether a value is the expected one; some expressions round to 1e-6."""
    return expected is None or math.isclose(value, expected, rel_tol=1e-8, abs_tol=5.1e-7)


def frame(intervals: Sequence[Interval], moment: float, seconds: float) -> Sequence[Interval]:
    """Return the records in the seconds up to a moment."""
    first, after = (bisect_right(intervals, end, key=_time_of) for end in (moment - seconds, moment))
    return intervals[first:after]


_time_of = attrgetter("time")


def now(intervals: Sequence[Interval], moment: float, seconds: float = LOOKBACK) -> Interval | None:
    """Return the newest record, unless it is too old."""
    within = frame(intervals, moment, seconds)
    return within[-1] if within else None


def by_attempt(compute: Callable[[Sequence[Interval], float], float | None]) -> Expected:
    """Expect a value of each attempt's cluster-wide records; NaN where there is none."""
    return Expected(
        (ATTEMPT,),
        lambda view, moment: {(str(attempt.number),): compute(attempt.cluster, moment) for attempt in view.attempts},
    )


def at_present(value: Callable[[Interval], float], seconds: float = LOOKBACK) -> Expected:
    """Expect a value of the newest record."""

    def compute(intervals: Sequence[Interval], moment: float) -> float:
        newest = now(intervals, moment, seconds)
        return math.nan if newest is None else value(newest)

    return by_attempt(compute)


def of_ranks(
    compute: Callable[[Sequence[Interval], float], float | None],
    most: int,
    labels: tuple[str, ...] = (ATTEMPT, RANK),
) -> Expected:
    """Expect a value of each rank's own records, of the largest or smallest ones."""
    return Expected(
        labels,
        lambda view, moment: {
            (str(attempt.number), str(rank))[: len(labels)]: compute(own, moment)
            for attempt in view.attempts
            for rank, own in enumerate(attempt.of_rank)
        },
        most,
    )
