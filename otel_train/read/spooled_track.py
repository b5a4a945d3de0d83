"""The values by step of rows that are in a spool, each key's gathered when it is asked for."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, MutableSequence

from otel_train.read.history import LazyValues, Track, finite_column, sum_of
from otel_train.read.row_spool import ABSENT, ABSENT_BITS, RowSpool

MOST_KEPT = 3
"""Columns that are kept for the next who asks."""
_OWN, _SINCE = "own", "since"
"""Columns of the order: when the row came that gives a step its values, and from when on others are merged into it."""


class SpooledOrder:
    """The order of a run's steps over the rows of a spool; a `Track` has it, of turns instead of values.

    Args:
        spool: The rows.
    """

    def __init__(self, spool: RowSpool) -> None:
        self._spool = spool
        self._order = Track(array("q"), array("q"), {_OWN: array("d"), _SINCE: array("d")})
        self._rows = array("q")
        """Number of the row of each turn."""
        self._merged = array("q")
        """Turns of the rows that are merged into a step."""

    def add_all(self) -> None:
        """Add all rows, whose steps grow, at once."""
        turns = array("d", range(len(self._spool)))
        columns: dict[str, MutableSequence[float]] = {_OWN: turns, _SINCE: turns[:]}
        self._order = Track(self._spool.steps[:], self._spool.times_ns[:], columns)
        self._rows = array("q", range(len(self._spool)))

    def add(self, row: int) -> None:
        """Add a row's step after the others, as `Track.add` has it."""
        turn = float(len(self._rows))
        self._order.add(self._spool.steps[row], self._spool.times_ns[row], {_OWN: turn, _SINCE: turn})
        self._rows.append(row)

    def merge(self, row: int) -> None:
        """Add a row's values to a step, as `Track.merge` has it."""
        step, steps = self._spool.steps[row], self._order.steps
        index = bisect_left(steps, step)
        is_new = index == len(steps) or steps[index] != step
        self._order.merge(step, self._spool.times_ns[row], {_SINCE: float(len(self._rows))} if is_new else {})
        self._merged.append(len(self._rows))
        self._rows.append(row)

    def begin_attempt(self) -> None:
        """Note that what follows is another attempt's."""
        self._order.begin_attempt()

    def track(self) -> Track:
        """Return the steps with their values."""
        steps, since, turns = self._order.steps, self._order.values[_SINCE], self._order.values[_OWN]
        late: list[tuple[int, int, bool]] = []
        for turn in self._merged:
            row = self._rows[turn]
            index = bisect_left(steps, self._spool.steps[row])
            # The rows of a step that another attempt made anew are replaced with it.
            if index < len(steps) and steps[index] == self._spool.steps[row] and turn >= since[index]:
                late.append((index, row, turn < turns[index]))
        own = array("q", [-1 if math.isnan(turn) else self._rows[int(turn)] for turn in turns])
        track = Track(steps, self._order.times_ns, SpooledValues(self._spool, own, late))
        track.merged.update(self._order.merged)
        return track


class SpooledValues(LazyValues):
    """Columns by wandb key, float64 [steps] each.

    Args:
        spool: The rows.
        rows: Number of the row of each step; negative for a step that has merged values only.
        late: Index of a step, number of a row that is merged into it, and whether that came before the step's own; in
            their order.
    """

    def __init__(self, spool: RowSpool, rows: array[int], late: list[tuple[int, int, bool]]) -> None:
        self._spool, self._rows, self._late = spool, rows, late
        self._is_plain = rows == array("q", range(len(spool)))
        self._keys = spool.keys()
        self._given: dict[str, MutableSequence[float]] = {}
        """Columns that were set."""
        self._sums: dict[str, tuple[float, int]] = {}
        self._kept: OrderedDict[str, array[float]] = OrderedDict()

    def __getitem__(self, key: str) -> MutableSequence[float]:
        if key not in self._keys:
            raise KeyError(key)
        if key in self._given:
            return self._given[key]
        if key not in self._kept:
            self._kept[key] = self._column(key)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def __setitem__(self, key: str, column: MutableSequence[float]) -> None:
        self._given[key] = column
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def newest(self, key: str) -> float:
        """Return the newest value of a key, NaN where there is none."""
        return next((value for value in reversed(self.get(key, ())) if not math.isnan(value)), math.nan)

    def finite_sum(self, key: str) -> tuple[float, int]:
        """Return the sum of a key's finite values, and their number."""
        if key not in self._sums or key in self._given:
            self._sums[key] = sum_of(finite_column(self.get(key, ())))
        return self._sums[key]

    def _column(self, key: str) -> array[float]:
        raw = self._spool.column(key)
        if self._is_plain:
            return raw
        column = array("d", [raw[row] if row >= 0 else ABSENT for row in self._rows])
        bits = memoryview(raw).cast("B").cast("Q")
        for index, row, is_early in self._late:
            if bits[row] == ABSENT_BITS:
                continue
            # A NaN that was logged before the step's own value is none to put in place of it.
            column[index] = raw[self._rows[index]] if is_early and math.isnan(raw[row]) else raw[row]
        return column
