"""The picks of a run's intervals, as columns: a million intervals take no more than their numbers do."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from operator import truediv
from typing import Any, cast, overload

from otel_train.read.column_values import row_sums
from otel_train.read.history import MixInterval


class Mix(Sequence[MixInterval]):
    """Intervals in order, as a sequence of them and as columns.

    Args:
        width: Number of modalities.
    """

    def __init__(self, width: int) -> None:
        self.steps = array("q")
        self.picks: list[array[float]] = [array("d") for _ in range(width)]
        """Picks of each modality, float64 [intervals]."""
        self.shares: list[array[float]] = [array("d") for _ in range(width)]
        """Target share of each modality, float64 [intervals]."""
        self.rows = array("d")
        """Picks that were drawn at once, float64 [intervals]."""
        self._totals = array("d")

    @classmethod
    def zeros(cls, width: int, number: int) -> Mix:
        """Return so many intervals of zeros, to be filled: columns that grow would be copied again and again."""
        mix = cls(width)
        for column in (mix.rows, *mix.picks, *mix.shares):
            column.frombytes(bytes(8 * number))
        mix.steps.frombytes(bytes(8 * number))
        return mix

    def cut(self, number: int) -> None:
        """Forget all but the first intervals."""
        del self.steps[number:]
        for column in (self.rows, *self.picks, *self.shares):
            del column[number:]

    @classmethod
    def of(cls, intervals: Sequence[MixInterval]) -> Mix:
        """Return some intervals as columns; columns as they are."""
        if isinstance(intervals, cls):
            return intervals
        mix = cls(len(intervals[0].picks) if intervals else 0)
        for interval in intervals:
            mix.append(interval)
        return mix

    def append(self, interval: MixInterval) -> None:
        """Add an interval after the others; the first one tells the number of modalities where that is 0."""
        if not self.picks:
            self.picks, self.shares = ([array("d") for _ in interval.picks] for _ in range(2))
        self.steps.append(interval.step)
        self.rows.append(interval.rows)
        for columns, values in ((self.picks, interval.picks), (self.shares, interval.shares)):
            for column, value in zip(columns, values, strict=True):
                column.append(value)

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> MixInterval: ...
    @overload
    def __getitem__(self, index: slice) -> Mix: ...
    def __getitem__(self, index: int | slice) -> MixInterval | Mix:
        if isinstance(index, slice):
            part = Mix(0)
            part.steps, part.rows = _part(self.steps, index), _part(self.rows, index)
            part.picks, part.shares = (
                [_part(column, index) for column in columns] for columns in (self.picks, self.shares)
            )
            if len(self._totals) == len(self):
                part._totals = _part(self._totals, index)
            return part
        picks, shares = (tuple(column[index] for column in columns) for columns in (self.picks, self.shares))
        return MixInterval(self.steps[index], picks, shares, self.rows[index])

    def totals(self) -> array[float]:
        """Return the picks of each interval, of all modalities together, float64 [intervals]."""
        if len(self._totals) != len(self):
            self._totals = (row_sums(self.picks) if self.picks else None) or array(
                "d", map(math.fsum, zip(*self.picks, strict=True))
            )
        return self._totals

    def drawn(self) -> Mix:
        """Return the intervals with their draws for picks: what was drawn at once was drawn once."""
        if all(map((1.0).__eq__, self.rows)):
            return self
        mix = Mix(0)
        mix.steps, mix.shares = self.steps, self.shares
        mix.picks = [array("d", map(truediv, column, self.rows)) for column in self.picks]
        mix.rows = array("d", [1.0]) * len(self)
        return mix

    def pick_rows(self) -> Iterator[tuple[float, ...]]:
        """Yield the picks of each interval."""
        return zip(*self.picks, strict=True)

    def share_rows(self) -> Iterator[tuple[float, ...]]:
        """Yield the target shares of each interval."""
        return zip(*self.shares, strict=True)


def _part(column: array[Any], index: slice) -> array[Any]:
    """Return a part of a column without a copy."""
    return cast("array[Any]", memoryview(column)[index])
