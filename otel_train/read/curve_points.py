"""A curve as two columns, its steps and its values, which is a sequence of (step, value) too."""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from otel_train.native import core

Point = tuple[float, float]
"""Step and value."""


class Points(Sequence[Point]):
    """Points of a curve, with growing steps.

    Args:
        steps: The steps.
        values: As many values.

    Example:
        >>> curve = Points([1, 2, 4], [0.5, 0.25, 2.0])
        >>> curve[1], curve[1:].values, len(curve)
        ((2.0, 0.25), [0.25, 2.0], 3)
    """

    __slots__ = ("steps", "values")

    def __init__(self, steps: Sequence[float], values: Sequence[float]) -> None:
        self.steps = steps
        self.values = values

    @classmethod
    def of(cls, points: Sequence[Point]) -> Points:
        """Return points as columns; those that are columns as they are."""
        if isinstance(points, cls):
            return points
        return cls([step for step, _ in points], [value for _, value in points])

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Point]:
        return zip(map(float, self.steps), self.values, strict=True)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> Point | Points:
        if isinstance(index, slice):
            return Points(self.steps[index], self.values[index])
        return float(self.steps[index]), self.values[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def where(self, chosen: Callable[[float], bool]) -> Points:
        """Return the points whose value is chosen."""
        indices = [index for index, value in enumerate(self.values) if chosen(value)]
        return Points([self.steps[index] for index in indices], [self.values[index] for index in indices])

    def scaled(self, scale: float) -> Points:
        """Return the points with their values multiplied."""
        if scale == 1:
            return self
        if core is not None and _is_column(self.values):
            products = array("d", [0.0]) * len(self.values)
            core.scale(self.values, scale, products)
            return Points(self.steps, products)
        return Points(self.steps, array("d", map(scale.__mul__, self.values)))

    def averaged(self, width: int) -> Points:
        """Return the mean of each window of points, at its last step."""
        if width <= 1:
            return self
        return Points(part_of(self.steps, width - 1, len(self)), window_means(self.values, width))


def _is_column(values: Sequence[float]) -> bool:
    if isinstance(values, memoryview):
        return values.format == "d" and values.contiguous and not values.readonly
    return isinstance(values, array) and values.typecode == "d"


def span_of(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the least and the largest of some values; None where there is none, or a NaN."""
    if core is not None and _is_column(values):
        span: tuple[float, float] | None = core.span(values)
        return span
    if not values or (math.isnan(sum(values)) and any(map(math.isnan, values))):
        return None
    return min(values), max(values)


def ends_of(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the largest of some values, one at least, none of which is NaN."""
    return span_of(values) or (min(values), max(values))


def part_of(values: Sequence[float], start: int, stop: int) -> Sequence[float]:
    """Return the values at [start, stop): of a column a view, which must not outlive the use of it."""
    return memoryview(values)[start:stop] if isinstance(values, array) else values[start:stop]


def exact_sum(values: Sequence[float]) -> float:
    """Return the correctly rounded sum.

    Raises:
        OverflowError: It is beyond a float.
        ValueError: There are infinities of both signs.
    """
    if core is not None and _is_column(values):
        total: float = core.whole_sum(values)
        if math.isfinite(total):
            return total
    return math.fsum(values)


def median_of(values: array[float]) -> float:
    """Return the median, of an even number of values the mean of the two in the middle.

    Args:
        values: At least one, and no NaN.
    """
    return float(core.median(values)) if core is not None else statistics.median(values)


def edge(values: Sequence[float], low: float, high: float, begin: int, end: int, *, inside: bool) -> int:
    """Return the index of the first value that is within [low, high], or that is not.

    Args:
        values: The values; a NaN is not within.
        low: The lower bound.
        high: The upper bound.
        begin: The index to begin with.
        end: The index to end before; one that is less than `begin` has the values looked at backwards.
        inside: Whether one within is looked for.

    Returns:
        The index; -1 where there is none.
    """
    if core is not None and _is_column(values):
        return int(core.edge(values, low, high, int(inside), begin, end))
    indices = range(begin, end, -1 if end < begin else 1)
    return next((index for index in indices if (low <= values[index] <= high) is inside), -1)


def are_within(values: Sequence[float], most: float) -> bool:
    """Tell whether all values lie between -`most` and `most`, which no NaN does."""
    if core is not None and _is_column(values):
        span = span_of(values)
        return not values or (span is not None and span[1] < most and span[0] > -most)
    # A NaN is neither less nor more than others, and makes the sum NaN.
    return not values or (max(values) < most and min(values) > -most and not math.isnan(sum(values)))


def window_means(values: Sequence[float], width: int) -> Sequence[float]:
    """Return the mean of each window of `width` values that follow each other, at any offset."""
    if width <= 1:
        return values
    count = max(0, len(values) - width + 1)
    if core is not None and isinstance(values, array):
        means = array("d", bytes(8 * count))
        core.window_means(len(values), width, values, means)
        return means
    return [math.fsum(values[end - width : end]) / width for end in range(width, len(values) + 1)]
