"""Keep what was logged beside the steps until a reduction takes it."""

from __future__ import annotations

from collections.abc import Sequence

from otel_train.step.late_values import LateValue

MOST_LOGGED = 10_000
"""Values that wait at most: a job whose reductions stand still must not grow."""


class LoggedValues:
    """Values that one rank has logged, in the order of their calls; those of one key and step are added up."""

    def __init__(self) -> None:
        self._waiting: list[LateValue] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, values: Sequence[LateValue]) -> None:
        """Keep values; beyond `MOST_LOGGED` the oldest are dropped."""
        self._waiting += values
        del self._waiting[:-MOST_LOGGED]

    def take(self) -> list[LateValue]:
        """Return what one reduction takes: of each key the values of the first step that it was logged for."""
        taken: dict[str, LateValue] = {}
        rest: list[LateValue] = []
        for value in self._waiting:
            first = taken.setdefault(value.metric.name, value)
            if first is value:
                continue
            if first.step == value.step:
                taken[value.metric.name] = _joined(first, value)
            else:
                rest.append(value)
        self._waiting = rest
        return list(taken.values())


def _joined(one: LateValue, other: LateValue) -> LateValue:
    device = other.device if one.device is None else one.device
    if one.device is not None and other.device is not None:
        device = one.device + other.device.to(one.device.device)
    return one._replace(total=one.total + other.total, weight=one.weight + other.weight, device=device)
