"""Recognise a collection that an SDK sends again under new time stamps, without anything new in it.

An SDK sends the last values of its gauges and totals at each of its intervals, and once more when it ends: a step that
lasts longer than an interval, and the last step, would be several rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    repeated_ns: int = 0
    """The time at which it came once more."""


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
        if pending.number is not None or not taken:
            return False
        values, key = _values(taken), (run, pending.attempt)
        last = self._last.get(key)
        if (
            last is not None
            and (last.repeated_ns == pending.time_ns if pending.step is None else last.step == pending.step)
            and last.time_ns != pending.time_ns
            and values.items() <= last.values.items()  # deltas of which there are none are left out
            and len(values) == len(taken)
        ):
            self._last[key] = replace(last, repeated_ns=pending.time_ns)
            return True
        if pending.step is None:
            if last is not None and last.repeated_ns == pending.time_ns:  # the part that has something new
                self._last[key] = _Last(last.step, pending.time_ns, last.values | values)
            return False
        self._last[key] = _Last(pending.step, pending.time_ns, values)
        self._last.move_to_end(key)
        if len(self._last) > MAX_ATTEMPTS:
            self._last.popitem(last=False)
        return False

    def step_at(self, run: int, attempt: int, time_ns: int) -> int | None:
        """Return the step of an attempt's last collection, where that is its time."""
        last = self._last.get((run, attempt))
        return last.step if last is not None and last.time_ns == time_ns else None

    def grow(self, run: int, attempt: int, time_ns: int, taken: Mapping[int, Point]) -> None:
        """Remember further points of a step, where it is the attempt's last one."""
        last = self._last.get((run, attempt))
        if last is not None and last.time_ns == time_ns:
            last.values.update(_values(taken))

    def repeated(self, run: int, attempt: int) -> list[int]:
        """Return the time at which an attempt's last step came once more, where it did."""
        last = self._last.get((run, attempt))
        return [last.repeated_ns] if last is not None and last.repeated_ns else []


def _values(taken: Mapping[int, Point]) -> dict[int, str]:
    """Return values by series, as text, of those that are not amounts since the collection before."""
    return {series: repr(point.value) for series, point in taken.items() if point.kind is not Kind.DELTA}
