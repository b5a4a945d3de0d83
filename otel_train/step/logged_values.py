"""Keep what was logged beside the steps until a reduction takes it."""

from __future__ import annotations

from collections.abc import Sequence

from otel_train.step.late_values import LateValue

MOST_LOGGED = 10_000
"""Values that wait at most: a job whose reductions stand still must not grow."""
LANES = 8
"""Steps of one key that a reduction takes; each lane that was ever used takes the place of a late key."""


class LoggedValues:
    """Values that one rank has logged, in the order of their calls; those of one key and step are added up."""

    def __init__(self) -> None:
        self._waiting: list[LateValue] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, values: Sequence[LateValue]) -> None:
        """Keep values; beyond `MOST_LOGGED` the oldest are dropped."""
        self._waiting += values
        del self._waiting[:-MOST_LOGGED]

    def take(self) -> list[LateValue]:
        """Return what one reduction takes: the values of the first `LANES` steps that each key was logged for."""
        taken: dict[tuple[str, int], LateValue] = {}
        steps: dict[str, list[int | None]] = {}
        rest: list[LateValue] = []
        for value in self._waiting:
            lanes = steps.setdefault(value.metric.name, [])
            if value.step not in lanes:
                if len(lanes) == LANES:
                    rest.append(value)
                    continue
                lanes.append(value.step)
            lane = 1 + lanes.index(value.step)
            first = taken.get((value.metric.name, lane))
            taken[value.metric.name, lane] = value._replace(lane=lane) if first is None else _joined(first, value)
        self._waiting = rest
        return list(taken.values())


def _joined(one: LateValue, other: LateValue) -> LateValue:
    device = other.device if one.device is None else one.device
    if one.device is not None and other.device is not None:
        device = one.device + other.device.to(one.device.device)
    return one._replace(total=one.total + other.total, weight=one.weight + other.weight, device=device)
