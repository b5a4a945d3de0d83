"""Time contenders that take turns, so that a machine that slows down slows all of them, and sum up what was seen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

BLOCK_NS = 20e6
"""How long a contender's block takes at most ..."""
WARM = 3
"""Steps in front of each block that do not count: the caches hold the contender's before."""
FEWEST = 5
"""... unless so few steps take longer."""
POOLED = 10
"""Rounds whose steps give a 99th percentile together."""

Step = Callable[[int], object]
"""The call that is timed: takes the step's number, counted from 1."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Cost of one contender: a value a round, in the section's unit."""

    medians: Sequence[float]
    """The median step of each round."""
    p99s: Sequence[float] = ()
    """The 99th percentile of each round's steps; empty where a round is one measurement."""

    @property
    def median(self) -> float:
        """The median round's median."""
        return statistics.median(self.medians)

    @property
    def p99(self) -> float | None:
        """The median round's 99th percentile."""
        return statistics.median(self.p99s) if self.p99s else None

    @property
    def spread(self) -> tuple[float, float]:
        """The 5th and 95th percentile of the rounds' medians."""
        return spread(self.medians)

    def ratio(self, ours: Figures) -> tuple[float, float, float]:
        """Return how much more than `ours` this is, round by round: the median, 5th and 95th percentile."""
        ratios = [theirs / own for theirs, own in zip(self.medians, ours.medians, strict=True) if own > 0]
        return (statistics.median(ratios), *spread(ratios)) if ratios else (float("nan"),) * 3


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, and what was measured for it."""

    text: str
    measured: str
    met: bool


@dataclass(slots=True)
class Section:
    """One benchmark's results."""

    number: int
    title: str
    how: str
    """Setup, as a reader must know it to judge the figures."""
    unit: str
    figures: dict[str, Figures] = field(default_factory=dict)
    """By contender."""
    ours: str = ""
    """The contender that the ratios are to."""
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Notes beside the figures: why a goal is missed, which limit was met."""
    tables: list[list[list[str]]] = field(default_factory=list)
    """Tables of another shape, the first row the header."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(x, y) by name, for the picture of growth."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the 5th and 95th percentile."""
    if len(values) < 2:
        return values[0], values[0]
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def take_turns(
    contenders: Mapping[str, Step], *, rounds: int, steps: int, less: str = "", scale: float = 1e-3
) -> dict[str, Figures]:
    """Time each step of each contender, a block of steps each in turn; the first round warms up and does not count.

    A round is short, so that a machine whose speed changes within seconds has one speed in most of the rounds.

    Args:
        contenders: What to time, by name.
        rounds: Rounds that count.
        steps: Steps of each contender in a round; fewer of one whose block would take longer than `BLOCK_NS`.
        less: The contender whose median is what the timing itself costs, taken off all the others.
        scale: What a nanosecond is in the unit of the figures; microseconds by default.

    Returns:
        Figures by name, each with a median a round and a 99th percentile for each `POOLED` of them.
    """
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    pooled: dict[str, list[list[float]]] = {name: [] for name in contenders}
    lengths = dict.fromkeys(contenders, steps)
    first = 1
    for number in range(rounds + 1):
        empty = 0.0
        for name, step in contenders.items():
            times = time_steps(step, first, WARM + lengths[name])[WARM:]
            middle = statistics.median(times) * scale
            if name == less:
                empty = middle
            off = empty if name != less else 0.0
            if number == 0:
                lengths[name] = max(FEWEST, min(steps, int(BLOCK_NS * scale / max(middle, scale))))
                continue
            medians[name].append(middle - off)
            if (number - 1) % POOLED == 0:
                pooled[name].append([])
            pooled[name][-1].extend(time * scale - off for time in times)
        first += WARM + steps
    return {name: Figures(medians[name], [quantile(times, 0.99) for times in pooled[name]]) for name in contenders}


def time_steps(step: Step, first: int, steps: int) -> list[int]:
    """Return the nanoseconds of each step from `first` on."""
    clock = time.perf_counter_ns
    times = [0] * steps
    for index in range(steps):
        begin = clock()
        step(first + index)
        times[index] = clock() - begin
    return times
