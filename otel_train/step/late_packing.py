"""Put values under late keys into the last part of a packed vector, whose sum gives those over the ranks. Pure.

    [ranks with such values, the first late key's total, weight, the second's ...,
    the first lane's steps, marks, the first late key's total, weight ...; the second lane's ...]

A late key is one that came after the first step; its number is agreed on beside the reductions. Its value belongs to
the step of the vector, or it was logged for a step of its own, and is in a lane then: a lane has one step's values. The
sum of the steps, and in one number how many ranks there are and a check value, show whether all ranks mean one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otel_train.native import core
from otel_train.step.late_values import LateValue

LANES = 2
"""Steps whose logged values one vector can have."""
_WIDTH = 2
"""Numbers of a late key: total and weight."""
_MARKS = 2
"""Numbers of a lane before those of its keys."""
_CHECK, _CHECKS = 2**20, 65_521
"""Factor and number of check values in a mark; a sum over 100,000 ranks is exact."""
_PRIME = 2**31 - 1


def square(step: int) -> float:
    """Return the step's square modulo a prime: steps of the right sum but not all equal have another sum of squares."""
    return float(step * step % _PRIME)


class LateSlot(NamedTuple):
    """A late key's slot."""

    number: int
    total: float
    weight: float


class Lane(NamedTuple):
    """A lane that ranks have filled."""

    lane: int
    step: int | None
    """Step that the values were logged for; None where the ranks mean more than one, and the values mean nothing."""
    slots: Sequence[LateSlot]


def _check(step: int) -> int:
    """Return the step's square modulo a prime of 16 bits: two steps less than two primes apart never pass for one."""
    return step * step % _CHECKS


def _common_step(steps: float, marks: float) -> int | None:
    """Return the step that a lane's ranks have logged values for; None where it is not one step."""
    checks, count = divmod(int(marks), _CHECK)
    step, rest = divmod(int(steps), count or 1)
    return step if not rest and checks == count * _check(step) else None


class LatePart:
    """The part of a packed vector that late keys' values are in.

    Args:
        offset: Its begin in the vector.
        keys: Late keys that have a slot.
    """

    def __init__(self, offset: int, keys: int) -> None:
        self.offset, self._keys = offset, keys
        self._lane = _MARKS + _WIDTH * keys
        """float64 in a lane."""
        self._lanes = offset + 1 + _WIDTH * keys
        """Offset of the lanes."""
        self.size = 1 + _WIDTH * keys + LANES * self._lane if keys else 0
        """float64 in the part."""

    def is_filled(self, doubles: memoryview[float]) -> bool:
        """Tell whether a vector has such values."""
        return bool(self._keys and doubles[self.offset])

    def put(self, doubles: memoryview[float], number: int, value: LateValue) -> int:
        """Put a value of the vector's step into what a rank packed, and return the offset of its total.

        Args:
            doubles: What the rank packed.
            number: The key's, less than `keys`.
            value: The value, of which a part may still be on a GPU.
        """
        return self._put(doubles, self.offset + 1 + _WIDTH * number, value)

    def log(self, doubles: memoryview[float], lane: int, number: int, value: LateValue) -> int:
        """Put a value that was logged beside the steps into a lane, and return the offset of its total.

        Args:
            doubles: What the rank packed.
            lane: The lane, less than `LANES`; all that a rank puts there are of one step.
            number: The key's, less than `keys`.
            value: The value, of which a part may still be on a GPU.
        """
        assert value.step is not None, "it was logged for a step"
        begin = self._lanes + lane * self._lane
        doubles[begin] = value.step
        doubles[begin + 1] = 1.0 + _CHECK * _check(value.step)
        return self._put(doubles, begin + _MARKS + _WIDTH * number, value)

    def _put(self, doubles: memoryview[float], begin: int, value: LateValue) -> int:
        doubles[self.offset] = 1.0
        doubles[begin] = value.total
        doubles[begin + 1] = value.weight
        return begin

    def slots(self, doubles: memoryview[float]) -> list[LateSlot]:
        """Return the slots of the vector's step that ranks have filled, added up over the ranks."""
        return self._slots(doubles, self.offset + 1) if self.is_filled(doubles) else []

    def lanes(self, doubles: memoryview[float]) -> list[Lane]:
        """Return the lanes that ranks have filled, added up over the ranks."""
        if not self.is_filled(doubles):
            return []
        lanes = []
        for lane in range(LANES):
            begin = self._lanes + lane * self._lane
            steps, marks = doubles[begin : begin + _MARKS]
            if marks:
                lanes.append(Lane(lane, _common_step(steps, marks), self._slots(doubles, begin + _MARKS)))
        return lanes

    def _slots(self, doubles: memoryview[float], begin: int) -> list[LateSlot]:
        if core is not None:
            return [LateSlot(*slot) for slot in core.late_slots(doubles, begin, self._keys)]
        numbers = doubles[begin : begin + _WIDTH * self._keys].tolist()
        pairs = zip(numbers[::_WIDTH], numbers[1::_WIDTH], strict=True)
        return [LateSlot(number, total, weight) for number, (total, weight) in enumerate(pairs) if weight]
