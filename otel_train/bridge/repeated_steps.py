"""Recognise a collection that an SDK sends again under new time stamps, without anything new in it.

An SDK sends the last values of its gauges and totals at each of its intervals, and once more when it ends: a step that
lasts longer than an interval, and the last step, would be several rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from otel_train.bridge.decode import Kind, Point
from otel_train.bridge.row_order import Pending

MAX_ATTEMPTS = 256
"""Attempts whose last step is remembered; of another one's a repetition is a row."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The last step of an attempt."""

    step: int | None
    time_ns: int
    values: dict[int, str]
    """Values by series, as text: NaN equals itself there."""


class Repeats:
    """The last step of each attempt whose sender does not number its steps, in memory only."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[int, int], _Last] = OrderedDict()

    def forget(self) -> None:
        """Drop all: steps of a transaction that failed come again."""
        self._last.clear()

    def is_repeat(self, run: int, pending: Pending, taken: Mapping[int, Point]) -> bool:
        """Tell whether a step that begins is the attempt's last one once more, and remember it if not.

        Args:
            run: The run's key.
            pending: The step.
            taken: Its points by series. What was added since the collection before is something new, whatever it is.
        """
        if pending.step is None or pending.number is not None or not taken:
            return False
        values = {series: repr(point.value) for series, point in taken.items() if point.kind is not Kind.DELTA}
        key, new = (run, pending.attempt), _Last(pending.step, pending.time_ns, values)
        last = self._last.get(key)
        if (
            last is not None
            and last.step == new.step
            and last.time_ns != new.time_ns
            and values.items() <= last.values.items()  # deltas of which there are none are left out
            and len(values) == len(taken)
        ):
            return True
        self._last[key] = new
        self._last.move_to_end(key)
        if len(self._last) > MAX_ATTEMPTS:
            self._last.popitem(last=False)
        return False
