"""Prepare a curve for a chart: few points that keep every peak, the stretches out of range, round ticks. Pure."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
"""(step, value)."""
Stretch: TypeAlias = tuple[float, float]
"""The first and the last step of a stretch."""
SMALLEST, LARGEST = 1e-290, 1e300
"""Bounds of drawn values: smaller ones are drawn as 0, larger ones at the bound, so that an axis' length is finite."""


def as_points(values: Iterable[tuple[int, float]]) -> list[Point]:
    """Return (step, value) pairs as points of a chart."""
    return [(float(step), value) for step, value in values]


def finite(points: Iterable[Point]) -> list[Point]:
    """Return the points whose value can be drawn."""
    return [
        (step, value if SMALLEST <= abs(value) <= LARGEST else math.copysign(LARGEST, value) if abs(value) > 1 else 0.0)
        for step, value in points
        if math.isfinite(value)
    ]


def decimate(points: Sequence[Point], low: float, high: float, columns: int) -> list[list[Point]]:
    """Thin a curve out to at most four points a pixel column: its first, lowest, highest and last.

    That draws the same pixels as all points (Jugel et al. 2014, "M4: A visualization-oriented time series data
    aggregation"). The curve is in pieces where points are missing: where two are at least twice as far apart as is
    usual in it, and in different columns.

    Args:
        points: Finite ones, with growing steps.
        low: The step at the first column.
        high: The step at the last one.
        columns: Number of columns.

    Returns:
        The pieces, each with one point at least.
    """
    apart = statistics.median(b[0] - a[0] for a, b in pairwise(points)) if len(points) > 1 else 1.0
    pieces: list[list[Point]] = []
    for start, stop in by_column(points, low, high, columns):
        if not pieces or points[start][0] - points[start - 1][0] >= 2 * apart:
            pieces.append([])
        pieces[-1] += _extremes(points[start:stop])
    return pieces


def by_column(points: Sequence[Point], low: float, high: float, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the first index and the end of the points in each column that has some."""
    column = column_of(low, high, columns)
    start = 0
    while start < len(points):
        following = column(points[start][0]) + 1
        stop = bisect_left(points, following, lo=start, key=lambda point: column(point[0]))
        yield start, stop
        start = stop


def column_of(low: float, high: float, columns: int) -> Callable[[float], int]:
    """Return the function that gives the column of a step."""
    width = (high - low) or 1.0
    return lambda step: min(columns - 1, max(0, int((step - low) / width * columns)))


def _extremes(points: Sequence[Point]) -> list[Point]:
    """Return the first, the lowest, the highest and the last of some points, in order, each once."""
    values = [value for _, value in points]
    lowest, highest = values.index(min(values)), values.index(max(values))
    return [points[index] for index in sorted({0, lowest, highest, len(points) - 1})]


def stretches(points: Iterable[Point], low: float, high: float) -> list[Stretch]:
    """Return the stretches of a curve outside [low, high]: the first and last step of each."""
    outside: list[Stretch] = []
    inside = True
    for step, value in points:
        if not low <= value <= high:
            begin = step if inside else outside.pop()[0]
            outside.append((begin, step))
        inside = low <= value <= high
    return outside


def merged(parts: Iterable[Stretch]) -> list[Stretch]:
    """Join stretches that overlap; they come in order."""
    joined: list[Stretch] = []
    for first, last in parts:
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def ticks(low: float, high: float, about: int = 4, *, whole: bool = False) -> list[float]:
    """Return round numbers in [low, high], 1, 2 or 5 times a power of ten apart, near to `about` of them."""
    span = high - low
    if not SMALLEST < span < math.inf:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]
