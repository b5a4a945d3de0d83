"""The values by step of rows that are in a spool, each key's gathered when it is asked for."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import MutableSequence, Sequence
from itertools import chain, compress
from operator import ne

from otel_train.read.gathered_values import GatheredValues
from otel_train.read.history import Track
from otel_train.read.row_spool import ABSENT, ABSENT_BITS, RowSpool

_OWN, _SINCE = "own", "since"
"""Columns of the order: when the row came that gives a step its values, and from when on others are merged into it."""

_SHORT = 4
"""Rows of a run on average, below which each is taken alone."""


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

    def add_all(self, rows: Sequence[int]) -> None:
        """Add rows whose steps grow, as many times `add` does."""
        order, begin = self._order, 0
        while begin < len(rows) and order.steps and order.steps[-1] >= self._spool.steps[rows[begin]]:
            self.add(rows[begin])
            begin += 1
        if begin == len(rows):
            return
        rows, first = rows[begin:], len(self._rows)
        steps = array("q", map(self._spool.steps.__getitem__, rows))
        turns = array("d", range(first, first + len(rows)))
        order.begin_attempt()  # all that is merged is before these
        order.merged.difference_update(steps)
        order.steps.extend(steps)
        order.times_ns.extend(map(self._spool.times_ns.__getitem__, rows))
        for column in order.values.values():
            column.extend(turns)
        self._rows.extend(rows)

    def add(self, row: int) -> None:
        """Add a row's step after the others, as `Track.add` has it."""
        turn = float(len(self._rows))
        self._order.add(self._spool.steps[row], self._spool.times_ns[row], {_OWN: turn, _SINCE: turn})
        self._rows.append(row)

    def merge(self, row: int) -> None:
        """Add a row's values to a step, as `Track.merge` has it."""
        step, steps = self._spool.steps[row], self._order.steps
        index = bisect_left(steps, step)
        if index == len(steps) or steps[index] != step:
            self._order.merge(step, self._spool.times_ns[row], {_SINCE: float(len(self._rows))})
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
        cuts = array("q", chain((0,), compress(range(1, len(rows)), map(ne, rows[1:], map((1).__add__, rows)))))
        self._runs: list[tuple[int, int]] = []
        """First row and length of each run of rows that follow one another; none where most are short."""
        if len(cuts) * _SHORT <= len(rows):
            self._runs = [(rows[cut], end - cut) for cut, end in zip(cuts, [*cuts[1:], len(rows)], strict=True)]
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
        if self._runs == [(0, len(raw))] and not self._late:
            return raw
        column = self._of_rows(raw)
        bits = memoryview(raw).cast("B").cast("Q")
        for index, row, is_early in self._late:
            if bits[row] == ABSENT_BITS:
                continue
            # A NaN that was logged before the step's own value is none to put in place of it.
            column[index] = raw[self._rows[index]] if is_early and math.isnan(raw[row]) else raw[row]
        return column

    def _of_rows(self, raw: array[float]) -> array[float]:
        """Return what the rows of the steps have, without what was merged into them."""
        if not self._runs:
            return array("d", [raw[row] if row >= 0 else ABSENT for row in self._rows])
        column = array("d")
        for first, length in self._runs:
            if first < 0:  # a step that has merged values only
                column.append(ABSENT)
            column.extend(raw[max(0, first) : first + length])
        return column
