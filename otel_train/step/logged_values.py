"""Keep what was logged beside the steps until a reduction takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from otel_train.step.late_packing import LANES
from otel_train.step.late_values import LateValue, joined

MOST_LOGGED = 10_000
"""Values that wait at most: a job whose reductions stand still must not grow."""
_MOST_TURNS = 6
"""Tries after which a step takes part in no fewer of its turns."""


class _Batch(NamedTuple):
    """Values of one step that were logged before one reduction, and go together."""

    step: int
    first: int | None
    """Number of that reduction; None before it."""


class LoggedValues:
    """Values that one rank has logged, in the order of their calls; those of one key and step are added up.

    Args:
        spacing: Reductions that may be under way at once: before that many more it is known what came of one.
    """

    def __init__(self, spacing: int = 1) -> None:
        self._spacing = spacing
        self._waiting: dict[_Batch, dict[str, LateValue]] = {}
        self._sent: dict[tuple[int, int], tuple[_Batch, dict[str, LateValue]]] = {}
        """Batches under way, by the reduction's number and the lane."""
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, values: Iterable[LateValue]) -> None:
        """Keep values; beyond `MOST_LOGGED` the oldest steps' are dropped."""
        for value in values:
            assert value.step is not None, "it was logged for a step"
            self._keep(_Batch(value.step, None), value)
        while self._count > MOST_LOGGED:
            self._pop(next(iter(self._waiting)))

    def _keep(self, batch: _Batch, value: LateValue) -> None:
        values = self._waiting.setdefault(batch, {})
        before = values.get(value.metric.name)
        values[value.metric.name] = value if before is None else joined(before, value)
        self._count += before is None

    def _pop(self, batch: _Batch) -> dict[str, LateValue]:
        values = self._waiting.pop(batch)
        self._count -= len(values)
        return values

    def take(self, number: int) -> dict[int, Sequence[LateValue]]:
        """Return what a reduction takes, by lane: each of one step's values.

        Ranks that have logged the same step before one reduction meet in its lane. Those of two steps in one lane can't
        be told apart, and are given back; so a step's lane differs from one reduction to the next. When it is tried
        again, and in how few reductions, follows from its first one alone: so it is the same on all of these ranks,
        whether it met another step there, another one of the rank's own was sent, or that is not known yet.

        Args:
            number: The reduction's, the same on all ranks.
        """
        waiting = self._waiting
        self._waiting = {
            batch if batch.first is not None else batch._replace(first=number): values
            for batch, values in waiting.items()
        }
        taken: dict[int, Sequence[LateValue]] = {}
        for batch in list(self._waiting):
            tries, rest = divmod(number - (batch.first or 0), self._spacing)
            mixed = crc32(b"%d %d" % (batch.step, number))
            lane, turn = mixed % LANES, mixed // LANES
            if lane not in taken and not rest and not turn % (1 << min(tries, _MOST_TURNS)):
                values = self._pop(batch)
                self._sent[number, lane] = batch, values
                taken[lane] = list(values.values())
        return taken

    def give_back(self, number: int, lane: int) -> None:
        """Keep the values that this rank gave to a lane of a reduction, if any: they met another step's."""
        sent = self._sent.pop((number, lane), None)
        if sent is not None:
            batch, values = sent
            for value in values.values():
                self._keep(batch, value)

    def arrived(self, number: int, lane: int) -> None:
        """Forget the values that this rank gave to a lane of a reduction."""
        self._sent.pop((number, lane), None)

    def take_all(self) -> list[LateValue]:
        """Return all that wait."""
        return [value for batch in list(self._waiting) for value in self._pop(batch).values()]
