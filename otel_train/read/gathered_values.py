"""Columns that are gathered when they are asked for, of which the last few are kept."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Iterator, MutableSequence

from otel_train.read.history import LazyValues, finite_column, sum_of

MOST_KEPT = 3
"""Columns that are kept for the next who asks."""


class GatheredValues(LazyValues):
    """Columns by wandb key, float64 [steps] each: those that were set, and others from where they are stored."""

    def __init__(self) -> None:
        self.given: dict[str, MutableSequence[float]] = {}
        """Columns that were set."""
        self.kept: OrderedDict[str, array[float]] = OrderedDict()
        """Columns that were gathered last."""
        self._sums: dict[str, tuple[float, int]] = {}

    @abstractmethod
    def names(self) -> dict[str, None]:
        """Return the keys, in their order; the caller may add and remove some."""

    @abstractmethod
    def gather(self, key: str) -> array[float]:
        """Return the column of a key.

        Raises:
            KeyError: There is no such key.
        """

    def __getitem__(self, key: str) -> MutableSequence[float]:
        if key in self.given:
            return self.given[key]
        if key not in self.kept:
            self.kept[key] = self.gather(key)
            if len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def __setitem__(self, key: str, column: MutableSequence[float]) -> None:
        self.given[key] = column
        self.names()[key] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, key: object) -> bool:
        return key in self.names()

    def newest(self, key: str) -> float:
        """Return the newest value of a key, NaN where there is none."""
        return next((value for value in reversed(self.get(key, ())) if not math.isnan(value)), math.nan)

    def finite_sum(self, key: str) -> tuple[float, int]:
        """Return the sum of a key's finite values, and their number."""
        if key not in self._sums or key in self.given:
            self._sums[key] = sum_of(finite_column(self.get(key, ())))
        return self._sums[key]
