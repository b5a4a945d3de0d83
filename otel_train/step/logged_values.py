"""Keep what was logged beside the steps until a reduction takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from otel_train.step.late_packing import LANES
from otel_train.step.late_values import LateValue, joined

MOST_LOGGED = 10_000
"""Values that wait at most: a job whose reductions stand still must not grow."""
_MOST_TRIES = 8
"""Reductions after whose collisions a step waits no longer between two tries."""


class LoggedValues:
    """Values that one rank has logged, by step in the order of their calls; those of one key and step are added up."""

    def __init__(self) -> None:
        self._steps: dict[int, dict[str, LateValue]] = {}
        self._tries: dict[int, int] = {}
        """Reductions in which a step met another one in its lane."""
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, values: Iterable[LateValue]) -> None:
        """Keep values; beyond `MOST_LOGGED` the oldest steps' are dropped."""
        for value in values:
            assert value.step is not None, "it was logged for a step"
            of_step = self._steps.setdefault(value.step, {})
            before = of_step.get(value.metric.name)
            of_step[value.metric.name] = value if before is None else joined(before, value)
            self._count += before is None
        while self._count > MOST_LOGGED:
            self._pop(next(iter(self._steps)))

    def _pop(self, step: int) -> list[LateValue]:
        values = list(self._steps.pop(step).values())
        self._count -= len(values)
        return values

    def take(self, number: int) -> dict[int, Sequence[LateValue]]:
        """Return what a reduction takes, by lane: each of one step's values.

        Ranks that have logged the same step meet in its lane. Those of two steps in one lane can't be told apart, and
        are given back; so a step's lane differs from one reduction to the next, and the more often it has met another
        one, the more reductions it leaves out.

        Args:
            number: The reduction's, the same on all ranks.
        """
        taken: dict[int, Sequence[LateValue]] = {}
        for step in list(self._steps):
            mixed = crc32(b"%d %d" % (step, number))
            lane, turn = mixed % LANES, mixed // LANES
            if lane not in taken and not turn % (1 << min(self._tries.get(step, 0), _MOST_TRIES)):
                taken[lane] = self._pop(step)
                if len(taken) == LANES:
                    break
        return taken

    def give_back(self, values: Sequence[LateValue]) -> None:
        """Keep values of one step that met another one's."""
        step = values[0].step
        assert step is not None, "it was logged for a step"
        self._tries[step] = self._tries.get(step, 0) + 1
        self.add(values)

    def arrived(self, step: int) -> None:
        """Forget how often a step met others."""
        self._tries.pop(step, None)

    def take_all(self) -> list[LateValue]:
        """Return all that wait."""
        return [value for step in list(self._steps) for value in self._pop(step)]
