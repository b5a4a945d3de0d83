"""A reduction's vector, packed and read by the native core and by its twins in Python."""

from __future__ import annotations

from array import array
from functools import cache
from types import ModuleType
from typing import Any

from fuzz.choices import FLOATS, Choices
from fuzz.targets.core_calls import answer
from fuzz.twins import twin_of
from otel_train.native import core
from otel_train.step import packing

RANKS = 40


@cache
def twin() -> ModuleType:
    """Return the module that runs where the core is not built."""
    return twin_of("otel_train.step.packing")


def run(data: bytes) -> None:
    """Pack the values of some ranks with both, add them up, and read the sum with both."""
    if core is None:
        return
    choices = Choices(data)
    shape = choices.below(6), choices.below(6), 1 + choices.below(RANKS), choices.below(4)
    plans: list[Any] = [packing.PackingPlan(*shape), twin().PackingPlan(*shape)]
    sums, peaks, ranks, _ = shape
    step = choices.whole()
    totals: list[Any] = [None, None]
    for rank in range(ranks):
        values = _values(choices, sums + peaks)
        packed = [answer_of_pack(plan, step, values, rank) for plan in plans]
        assert packed[0][0] == packed[1][0], (shape, step, values, packed)
        if packed[0][1] is None:
            return
        for which, (_, vector) in enumerate(packed):
            if totals[which] is None:
                totals[which] = vector
            else:
                totals[which].vector.add_(vector.vector)
    if choices.below(4) == 0:  # whatever else may come back
        at, number = choices.below(plans[0].size), choices.real()
        for total in totals:
            total.doubles[at] = number
    asked = step if choices.below(4) else choices.whole()
    for name in ("everybody", "others", "unpack", "signs"):
        given = () if name == "signs" else (asked,)
        answers = [answer(getattr(plan, name), total, *given) for plan, total in zip(plans, totals, strict=True)]
        assert answers[0] == answers[1], (shape, name, asked, answers)


def answer_of_pack(plan: Any, step: int, values: Any, rank: int) -> tuple[object, Any]:
    """Return the bytes of a packed vector, or what packing raises, and the vector where there is one."""
    made: list[Any] = []
    raised = answer(lambda: made.append(plan.pack(step, values, rank)))
    return (bytes(made[0].buffer), made[0]) if made else (raised, None)


def _values(choices: Choices, count: int) -> Any:
    """Return as many numbers as are packed, or now and then another count, in any form."""
    count = max(0, count + choices.below(3) - 1) if choices.rarely() else count
    values: list[Any] = [choices.one(FLOATS) if choices.below(3) else choices.below(50) for _ in range(count)]
    if choices.rarely() and values:
        values[choices.below(count)] = choices.one([True, "1", None, 2**2000, 2**53 + 1])
        return choices.one([list, tuple])(values)
    form = choices.below(4)
    if form < 2:
        return (list, tuple)[form](values)
    numbers = array("d", map(float, values))
    return numbers if form == 2 else memoryview(numbers)
