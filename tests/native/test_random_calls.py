"""Random calls of the core, and beside its twins; `make sanitize` runs them with a build that shows bad accesses."""

from __future__ import annotations

import random

import pytest

from fuzz import OF_CORE, load
from fuzz.targets.core_calls import SIGNATURES, entries
from otel_train.native import core

pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built, or not chosen")
INPUTS = 150


@pytest.mark.parametrize("target", OF_CORE)
def test_random_input_is_borne(target: str) -> None:
    """Each target of the core takes any bytes."""
    run, source = load(target), random.Random(target)
    for _ in range(INPUTS):
        run(source.randbytes(source.randrange(64, 1500)))


def test_each_function_is_called() -> None:
    """The targets know what each function of the core takes: else random calls would not get far."""
    without = {"KeyTable.clear", "KeyTable.entries", "KeyTable.ring", "Ring.unbind", "Steps.unbind"}
    assert entries().keys() - SIGNATURES.keys() == without | {"forget_signal", "signal_came"}
    assert SIGNATURES.keys() - entries().keys() == set()
