"""What a chart draws of a curve: few points that keep every peak, the stretches out of range, round ticks. Pure."""

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
"""Values beyond are drawn as 0, or there: so that an axis' length stays a number."""


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
        columns: How many there are.

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
    """Yield where in a curve each column that has points begins and ends."""
    column = column_of(low, high, columns)
    start = 0
    while start < len(points):
        following = column(points[start][0]) + 1
        stop = bisect_left(points, following, lo=start, key=lambda point: column(point[0]))
        yield start, stop
        start = stop


def column_of(low: float, high: float, columns: int) -> Callable[[float], int]:
    """Return the function that tells in which column a step falls."""
    width = (high - low) or 1.0
    return lambda step: min(columns - 1, max(0, int((step - low) / width * columns)))


def _extremes(points: Sequence[Point]) -> list[Point]:
    """Return the first, the lowest, the highest and the last of some points, in order, each once."""
    values = [value for _, value in points]
    lowest, highest = values.index(min(values)), values.index(max(values))
    return [points[index] for index in sorted({0, lowest, highest, len(points) - 1})]


def stretches(points: Iterable[Point], low: float, high: float) -> list[Stretch]:
    """Return where a curve is outside [low, high]: the first and last step of each stretch."""
    found: list[Stretch] = []
    inside = True
    for step, value in points:
        if not low <= value <= high:
            begin = step if inside else found.pop()[0]
            found.append((begin, step))
        inside = low <= value <= high
    return found


def merged(parts: Iterable[Stretch]) -> list[Stretch]:
    """Join stretches that overlap; they come in order."""
    found: list[Stretch] = []
    for first, last in parts:
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def ticks(low: float, high: float, about: int = 4, *, whole: bool = False) -> list[float]:
    """Return round numbers in [low, high], 1, 2 or 5 times a power of ten apart, near to `about` of them."""
    span = high - low
    if not SMALLEST < span < math.inf:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def window_means(points: Sequence[Point], width: int) -> list[Point]:
    """Return the mean of each `width` points, at the step of the last of them."""
    if width <= 1:
        return list(points)
    values = [value for _, value in points]
    return [(points[end - 1][0], math.fsum(values[end - width : end]) / width) for end in range(width, len(points) + 1)]


def figure(value: float) -> str:
    """Return a number for people, in about six characters."""
    if math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")):
        if 1e15 > size >= power:
            return f"{value / (1e3 if letter == 'k' else power):.4g}{letter}"
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if size >= 1000 else f"{value:.3g}"


def exactly(value: float) -> str:
    """Return a step with all of its digits."""
    return f"{value:,.0f}" if float(value).is_integer() else figure(value)


def labels(values: Sequence[float], show: Callable[[float], str]) -> list[str]:
    """Return how ticks are written: as `show` writes them, or with as many digits as it takes to tell them apart."""
    shown = [show(value) for value in values]
    for digits in range(4, 17):
        if len(set(shown)) == len(set(values)):
            break
        shown = [f"{value:.{digits}g}" for value in values]
    return shown
