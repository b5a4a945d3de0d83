"""The values by step of rows that are in a spool, each key's gathered when it is asked for."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import MutableSequence

from otel_train.read.gathered_values import GatheredValues
from otel_train.read.history import Track
from otel_train.read.row_spool import ABSENT, ABSENT_BITS, RowSpool

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


class SpooledValues(GatheredValues):
    """Columns by wandb key, float64 [steps] each.

    Args:
        spool: The rows.
        rows: Number of the row of each step; negative for a step that has merged values only.
        late: Index of a step, number of a row that is merged into it, and whether that came before the step's own; in
            their order.
    """

    def __init__(self, spool: RowSpool, rows: array[int], late: list[tuple[int, int, bool]]) -> None:
        super().__init__()
        self._spool, self._rows, self._late = spool, rows, late
        self._is_plain = rows == array("q", range(len(spool)))
        self._keys = spool.keys()

    def names(self) -> dict[str, None]:
        """Return the keys, in the order in which they came."""
        return self._keys

    def __getitem__(self, key: str) -> MutableSequence[float]:
        if key not in self._keys:  # it may have been removed
            raise KeyError(key)
        return super().__getitem__(key)

    def __delitem__(self, key: str) -> None:
        del self._keys[key]

    def gather(self, key: str) -> array[float]:
        """Return the column of a key, with what was merged."""
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
