"""The core and its twin in Python pack and read a reduction's vector alike, to the last bit."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import Metric
from otel_train.native import core
from otel_train.step import late_packing, packing
from otel_train.step.late_values import LateValue
from otel_train.step.packing import Packed, PackingPlan, Presence, RankSign

pytestmark = pytest.mark.skipif(core is None, reason="the twins run alone")
NUMBERS = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 2.0**53, 5e-324, 1.0, 7.0]),
    st.integers(-(2**60), 2**60),
)
STEPS = st.one_of(st.integers(0, 100), st.sampled_from([2**31 - 1, 2**31, 2**53]))
FORMS: Any = st.sampled_from([tuple, list, lambda numbers: array("d", numbers), lambda n: memoryview(array("d", n))])
SHAPES = st.tuples(st.integers(0, 5), st.integers(0, 5), st.one_of(st.integers(1, 4), st.integers(5, 300)))


def twin_of(sums: int, peaks: int, world_size: int, late_keys: int = 0) -> PackingPlan:
    """Return a plan that runs in Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "core", None)
        return PackingPlan(sums, peaks, world_size, late_keys)


def bits(numbers: Sequence[float] | None) -> bytes | None:
    """Return numbers as bytes, which tell NaNs and zeros apart."""
    return None if numbers is None else struct.pack(f"={len(numbers)}d", *numbers)


@settings(max_examples=150, deadline=None)
@given(st.data(), SHAPES, STEPS, FORMS)
def test_both_pack_alike(data: Any, shape: tuple[int, int, int], step: int, form: Any) -> None:
    """Both fill a used vector with the same bytes, from numbers of any form, and more of them than are packed."""
    sums, peaks, world_size = shape
    rank = data.draw(st.integers(0, world_size - 1))
    count = sums + peaks + data.draw(st.integers(0, 3))
    values = form(data.draw(st.lists(NUMBERS, min_size=count, max_size=count)))
    late = data.draw(st.booleans())
    packed = []
    for plan in (PackingPlan(*shape, late_keys=3), twin_of(*shape, late_keys=3)):
        used = plan.pack(1, [1.0] * (sums + peaks), 0)
        used.vector[: plan.late.offset] = math.nan
        if late:
            plan.late.put(used.doubles, 2, LateValue(Metric("late"), math.inf, 1.0))
        packed.append(bytes(plan.pack(step, values, rank, used).buffer))
    assert packed[0] == packed[1]


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES, st.lists(st.sampled_from(["values", "late", *Presence]), min_size=1, max_size=5))
def test_own_vector_is_used_again(data: Any, shape: tuple[int, int, int], before: list[Any]) -> None:
    """A rank's own vector, whose result came into another one, is as good as a new one, whatever was packed before."""
    sums, peaks, world_size = shape
    rank = data.draw(st.integers(0, world_size - 1))
    values = [2.5] * (sums + peaks)
    for plan in (PackingPlan(*shape, late_keys=2), twin_of(*shape, late_keys=2)):
        own = plan.over(torch.zeros(plan.size, dtype=torch.float64), own=True)
        for step, case in enumerate(before):
            if isinstance(case, Presence):
                own = plan.pack_absent(RankSign(step, case), rank, own)
            else:
                own = plan.pack(step, [math.nan] * (sums + peaks), rank, own)
            if case == "late":
                plan.late.put(own.doubles, 1, LateValue(Metric("late"), 3.0, 1.0))
                plan.late.log(own.doubles, 0, 1, LateValue(Metric("late"), 3.0, 1.0, step))
        assert bytes(plan.pack(9, values, rank, own).buffer) == bytes(plan.pack(9, values, rank).buffer)
        sign = RankSign(9, Presence.CLOSED)
        assert bytes(plan.pack_absent(sign, rank, own).buffer) == bytes(plan.pack_absent(sign, rank).buffer)


@settings(max_examples=150, deadline=None)
@given(st.data(), SHAPES, STEPS)
def test_both_unpack_alike(data: Any, shape: tuple[int, int, int], step: int) -> None:
    """Both read the same values, and name the same ranks, of vectors with NaN, infinities, absent and closed ranks."""
    plan, twin, (sums, peaks, world_size) = PackingPlan(*shape), twin_of(*shape), shape
    pool = data.draw(st.lists(NUMBERS, min_size=1, max_size=6))
    random = data.draw(st.randoms())
    signs = [RankSign(random.choice((step, step, step + 1)), presence) for presence in Presence]
    total = plan.pack(step, [random.choice(pool) for _ in range(sums + peaks)], 0)
    scratch: Packed | None = None
    for rank in range(1, world_size):
        if random.random() < 0.1 / world_size:
            scratch = plan.pack_absent(random.choice(signs), rank, scratch)
        else:
            scratch = plan.pack(step, [random.choice(pool) for _ in range(sums + peaks)], rank, scratch)
        total.vector.add_(scratch.vector)
    for asked in (step, step + 1):
        assert bits(plan.unpack(total, asked)) == bits(twin.unpack(total, asked))
        assert plan.everybody(total, asked) == twin.everybody(total, asked)
        assert plan.others(total, asked) == twin.others(total, asked)


@settings(max_examples=150, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=400))
@example([1.0, 7.0] * 100)
@example([1.0, *[7.0] * 150, math.nan, math.inf, math.nan, -math.inf])
def test_maximum_is_lowest_ranks(candidates: list[float]) -> None:
    """Whatever the candidates of one rank each, both take the lowest rank's that has the maximum, or a NaN."""
    world_size = len(candidates)
    plan, twin = PackingPlan(0, 1, world_size), twin_of(0, 1, world_size)
    packed = plan.pack(7, [0.0], 0)
    packed.vector[:3] = torch.tensor([world_size, 7.0 * world_size, 49.0 * world_size])
    packed.doubles[4 : 4 + world_size] = array("d", candidates)
    rank = next((rank for rank, number in enumerate(candidates) if math.isnan(number)), None)
    if rank is None:
        rank = candidates.index(max(candidates))
    expected = bits([float(candidates[rank]), float(rank)])
    assert bits(plan.unpack(packed, 7)) == bits(twin.unpack(packed, 7)) == expected


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 8), st.tuples(st.floats(), st.floats().filter(bool)), max_size=9))
def test_both_read_late_keys(late: dict[int, tuple[float, float]]) -> None:
    """Both read the same slots of late keys, of the vector's step and of a lane."""
    plan = PackingPlan(1, 1, 2, 9)
    packed = plan.pack(1, [1.0, 1.0], 0)
    for number, (total, weight) in late.items():
        plan.late.put(packed.doubles, number, LateValue(Metric("late"), total, weight))
        plan.late.log(packed.doubles, 1, number, LateValue(Metric("late"), weight, weight, 3))
    native = repr((plan.late.slots(packed.doubles), plan.late.lanes(packed.doubles)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_packing, "core", None)
        assert repr((plan.late.slots(packed.doubles), plan.late.lanes(packed.doubles))) == native


class Odd:
    """A number of the user's own."""

    def __float__(self) -> float:
        return 2.5


@pytest.mark.parametrize("values", [(Odd(), 1.0, 2.0), (True, 1, 2.0), (2**70, 1.0, 2.0), torch.ones(3)])
def test_odd_numbers_reach_twin(values: Any) -> None:
    """Numbers that the core does not read are packed as the twin does."""
    native, twin = (plan.pack(3, values, 1) for plan in (PackingPlan(2, 1, 2), twin_of(2, 1, 2)))
    assert bytes(native.buffer) == bytes(twin.buffer)


@pytest.mark.parametrize("values", [(1.0, 2.0), ("1", 2.0, 3.0), (1.0, 2.0, None), array("d", [1.0]), 2**2000])
def test_refused_numbers_raise_alike(values: Any) -> None:
    """What is no number, or is missing, raises what the twin raises."""
    errors = []
    for plan in (PackingPlan(2, 1, 2), twin_of(2, 1, 2)):
        with pytest.raises((struct.error, TypeError, ValueError, OverflowError)) as raised:
            plan.pack(3, values if isinstance(values, tuple | array) else (values, 1.0, 2.0), 1)
        errors.append(type(raised.value))
    assert errors[0] is errors[1]


@pytest.mark.parametrize(
    "arguments", [(-1, 1, 2, 99), (1, 1, 0, 99), (1, 1, 2, 3), (1 << 40, 1, 2, 99), (1, 1, 2, 1 << 62)]
)
def test_core_refuses_odd_shapes(arguments: tuple[int, int, int, int]) -> None:
    """A shape that no vector has is refused."""
    assert core is not None
    with pytest.raises(ValueError, match="no vector"):
        core.Packing(*arguments)


def test_core_refuses_other_buffers() -> None:
    """A vector that is too short, of other numbers, read-only or between two numbers is refused; nothing is written."""
    assert core is not None
    shape = core.Packing(1, 1, 2, 9)
    between = memoryview(bytearray(81))[1:73].cast("d")
    for vector in (array("d", [5.0] * 8), array("q", [5] * 9), memoryview(bytes(72)).cast("d"), between, [5.0] * 9):
        with pytest.raises((ValueError, BufferError, TypeError)):
            shape.pack(vector, 1, (1.0, 2.0), 0, False)
    with pytest.raises(ValueError, match="late keys"):
        core.late_slots(array("d", [0.0] * 5), 2, 2)
    assert shape.pack(array("d", [5.0] * 9), 1, (1.0, 2.0), 2, False) is False


def test_schema_may_be_empty() -> None:
    """A vector without sums and peaks is packed and read: an empty array of Python's begins at any byte."""
    plan = PackingPlan(0, 0, 1)
    assert plan.unpack(plan.pack(5, (), 0), 5) == array("d")
