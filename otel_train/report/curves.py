"""Prepare a curve for a chart: few points that keep every peak, the stretches out of range, round ticks. Pure.

Of a long curve a column of pixels has many points. Lines between them would fill the column from its lowest to its
highest point, and of a noisy curve nothing is left to see but a block: it is drawn as a band between the two, with the
means in it.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from otel_train.read.curve_points import Point, Points, are_within, edge, ends_of, exact_sum, part_of

Stretch: TypeAlias = tuple[float, float]
"""The first and the last step of a stretch."""
MOST_IN_LINE = 2
"""Points in a column, on average, up to which a curve is a line."""
GAPS_SAMPLED = 4096
"""Distances between points at most that tell what is usual in a curve."""
MOST_COPIED = 4096
"""Points up to which a curve is copied, value by value."""
MOST_ADDED = 1e200
"""Bound of values that are added up as they are."""
SMALLEST, LARGEST = 1e-290, 1e300
"""Bounds of drawn values: smaller ones are drawn as 0, larger ones at the bound, so that an axis' length is finite."""


def finite(points: Iterable[Point]) -> Points:
    """Return the points whose value can be drawn."""
    if isinstance(points, Points) and len(points) > MOST_COPIED and are_within(points.values, LARGEST):
        return points  # its smallest values are no more than a line at 0 among so many
    pairs = [
        (step, value if SMALLEST <= abs(value) <= LARGEST else math.copysign(LARGEST, value) if abs(value) > 1 else 0.0)
        for step, value in points
        if math.isfinite(value)
    ]
    return Points.of(pairs)


class Bin(NamedTuple):
    """The points of a curve in one column."""

    step: float
    """The mean of the first and the last one's."""
    lowest: float
    mean: float
    highest: float


def is_dense(points: Sequence[Point], low: float, high: float, columns: int) -> bool:
    """Tell whether a curve has so many points in a column that lines between them would hide it; see `decimate`."""
    if len(points) <= MOST_IN_LINE:
        return False
    column = column_of(low, high, columns)
    return len(points) > MOST_IN_LINE * (1 + column(points[-1][0]) - column(points[0][0]))


def bins(points: Sequence[Point], low: float, high: float, columns: int) -> list[list[Bin]]:
    """Sum a curve up, a bin for each column that has points; in pieces as those of `decimate`.

    Args:
        points: Finite ones, with growing steps.
        low: The step at the first column.
        high: The step at the last one.
        columns: Number of columns.

    Returns:
        The pieces, each with one bin at least.
    """
    curve = Points.of(points)
    return [[_bin(curve, start, stop) for start, stop in piece] for piece in _pieces(curve, low, high, columns)]


def _bin(points: Points, start: int, stop: int) -> Bin:
    values = part_of(points.values, start, stop)
    lowest, highest = ends_of(values)
    if max(-lowest, highest) < MOST_ADDED:
        mean = exact_sum(values) / len(values)
    else:
        # Parts of all values are added: sums of the largest ones would overflow.
        mean = math.fsum(value / len(values) for value in values)
    return Bin(points.steps[start] / 2 + points.steps[stop - 1] / 2, lowest, min(highest, max(lowest, mean)), highest)


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
    curve = Points.of(points)
    pieces = _pieces(curve, low, high, columns)
    return [[point for start, stop in piece for point in _extremes(curve[start:stop])] for piece in pieces]


def _pieces(points: Points, low: float, high: float, columns: int) -> list[list[tuple[int, int]]]:
    """Return the first index and the end of the points in each column that has some, in pieces."""
    apart = _usual_gap(points)
    pieces: list[list[tuple[int, int]]] = []
    for start, stop in by_column(points, low, high, columns):
        if not pieces or points.steps[start] - points.steps[start - 1] >= 2 * apart:
            pieces.append([])
        pieces[-1].append((start, stop))
    return pieces


def _usual_gap(points: Points) -> float:
    """Return the median of the distances between neighbours, of a long curve over a sample of them."""
    indices = range(1, len(points), -(-len(points) // GAPS_SAMPLED) or 1)
    steps = points.steps
    return float(statistics.median(steps[index] - steps[index - 1] for index in indices)) if indices else 1.0


def by_column(points: Sequence[Point], low: float, high: float, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the first index and the end of the points in each column that has some."""
    column = column_of(low, high, columns)
    steps = Points.of(points).steps
    start = 0
    while start < len(steps):
        following = column(steps[start]) + 1
        stop = bisect_left(steps, following, lo=start, key=column)
        yield start, stop
        start = stop


def column_of(low: float, high: float, columns: int) -> Callable[[float], int]:
    """Return the function that gives the column of a step."""
    width = (high - low) or 1.0
    return lambda step: min(columns - 1, max(0, int((step - low) / width * columns)))


def _extremes(points: Points) -> list[Point]:
    """Return the first, the lowest, the highest and the last of some points, in order, each once."""
    values = points.values
    lowest, highest = map(values.index, ends_of(values))
    return [points[index] for index in sorted({0, lowest, highest, len(points) - 1})]


def stretches(points: Points, low: float, high: float) -> list[tuple[int, int]]:
    """Return the stretches of a curve outside [low, high]: the indices of the first and last point of each."""
    outside: list[tuple[int, int]] = []
    values, stop = points.values, 0
    while stop < len(values):
        begin = edge(values, low, high, stop, len(values), inside=False)
        if begin < 0:
            break
        stop = edge(values, low, high, begin, len(values), inside=True)
        if stop < 0:
            stop = len(values)
        outside.append((begin, stop - 1))
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
