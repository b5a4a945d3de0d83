"""A mixing meter in the native core beside its twin in Python: they answer alike to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from fuzz.choices import Choices
from fuzz.targets.core_calls import answer
from fuzz.twins import twin_of
from otel_train.mixing import MixingMeter
from otel_train.native import core

CALLS = 80
NAMES = tuple("abcdefgh")


@cache
def twin() -> Callable[..., Any]:
    """Return the meter that runs where the core is not built."""
    meter: Callable[..., Any] = twin_of("otel_train.mixing").MixingMeter
    return meter


def run(data: bytes) -> None:
    """Do the same with both."""
    if core is None:
        return
    choices = Choices(data)
    names, slots = NAMES[: 1 + choices.below(8)], choices.below(9)
    weights = {name: 1.0 + choices.below(9) for name in names}
    options: dict[str, Any] = {
        "horizon": choices.one([4096.0, 1.0, 0.5, 1e9]),
        "step": choices.below(100),
        "unit": choices.one(["row", "batch"]),
        "scope": choices.one(["rank", "cluster"]),
    }
    meters = [made(slots, names, weights, **options) for made in (MixingMeter, twin())]
    for _ in range(CALLS):
        if not choices:
            break
        name, arguments, named = _call(choices, names, slots)
        answers = [answer(getattr(meter, name), *arguments, **named) for meter in meters]
        assert answers[0] == answers[1], (name, arguments, named, answers)
        if choices.rarely():
            states = [meter.state_dict() for meter in meters]
            assert repr(states[0]) == repr(states[1])
            for meter, state in zip(meters, states, strict=True):
                meter.load_state_dict(state)
    ends = [repr((meter.drain_measurements(), meter.state_dict())) for meter in meters]
    assert ends[0] == ends[1]


def _call(choices: Choices, names: tuple[str, ...], slots: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return a method, and what it is given: mostly what it takes."""
    slot: Any = choices.below(slots + 1) if not choices.rarely() else _odd(choices)
    match choices.below(10):
        case 0:
            return "open", (slot, choices.one(names)), {}
        case 1:
            return "restart", (slot,), {}
        case 2:
            return "close", (slot,), {}
        case 3:
            return "set_weights", ({name: float(choices.below(5)) for name in names},), {}
        case 4:
            return "drain_measurements", (choices.below(200),) if choices.below(2) else (), {}
        case 5:
            return "end_step", (choices.below(200),), {}
        case _:
            rows: Any = 1 + choices.below(3) if not choices.rarely() else _odd(choices)
            tokens: Any = choices.below(200) if not choices.rarely() else _odd(choices)
            form = choices.below(4)
            return "pick", (slot, rows, tokens)[: 1 + form % 3], {"tokens": tokens} if form < 2 else {}


def _odd(choices: Choices) -> Any:
    kind = choices.below(6)
    if kind < 2:
        return choices.whole()
    if kind < 4:
        return choices.real()
    return choices.one([True, None, "1", b"1", torch.tensor(2), torch.tensor(1.5), torch.tensor([1, 2])])
