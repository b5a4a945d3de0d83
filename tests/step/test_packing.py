"""Packing: one vector whose sum over the ranks gives every sum, mean and maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import ABSENT, LEDGER, MIXING, Layout, Metric, Reduction, rows
from otel_train.step.late_packing import LANES
from otel_train.step.late_values import LateValue
from otel_train.step.packing import Packed, PackingPlan

PEAK = Metric("peak", Reduction.MAX)
LAYOUT = Layout((*MIXING, *LEDGER, Metric("loss"), PEAK), ("a", "b"))
COUNTS = st.integers(0, 2**53 // 8)
RANK = st.tuples(
    st.lists(COUNTS, min_size=LAYOUT.sums, max_size=LAYOUT.sums),
    st.lists(st.one_of(st.just(ABSENT), COUNTS.map(float)), min_size=LAYOUT.peaks, max_size=LAYOUT.peaks),
)


def add_up(packed: Sequence[Packed]) -> Packed:
    """Do what the collective does, in place."""
    for other in packed[1:]:
        packed[0].vector.add_(other.vector)
    return packed[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(RANK, min_size=1, max_size=8), st.integers(1, 2**31), st.randoms())
def test_packed_sum_reduces_each_metric(ranks: list[tuple[list[int], list[float]]], step: int, random: Any) -> None:
    """One sum of packed vectors gives what a reduction metric by metric does, exact to 2**53, with the lowest rank of
    each maximum.
    """
    plan = PackingPlan.of(LAYOUT, len(ranks))
    used = [plan.pack(0, [1.0] * (plan.sums + plan.peaks), rank) for rank in reversed(range(len(ranks)))]
    packed = [plan.pack(step, [*sums, *peaks], rank, used[rank]) for rank, (sums, peaks) in enumerate(ranks)]
    random.shuffle(packed)
    reduced = plan.unpack(add_up(packed), step)
    assert reduced is not None
    sums, peaks, peak_ranks = map(list, LAYOUT.split(reduced))
    assert sums == [sum(column) for column in zip(*(sums for sums, _ in ranks), strict=True)]
    candidates = list(zip(*(peaks for _, peaks in ranks), strict=True))
    assert peaks == [max(column) for column in candidates]
    assert peak_ranks == [column.index(max(column)) for column in candidates]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nan_stays_in_its_scalar(poison: float) -> None:
    """NaN and infinity reach the cluster's value of their scalar, and no other value."""
    layout = Layout((rows.PICKS, Metric("loss"), PEAK, Metric("other", Reduction.MAX)))
    plan = PackingPlan.of(layout, 2)
    packed = [plan.pack(1, [3.0, poison, 1.0, poison, 5.0], 0), plan.pack(1, [4.0, 2.0, 1.0, ABSENT, 6.0], 1)]
    reduced = plan.unpack(add_up(packed), 1)
    assert reduced is not None
    values = layout.by_key(*layout.split(reduced))
    assert (values["stream_mixing/picks"], values["other"], values["other_rank"]) == (7.0, 6.0, 1.0)
    assert values["loss"] == pytest.approx(poison, nan_ok=True)
    assert values.get("peak", -math.inf) == pytest.approx(poison, nan_ok=True)


@pytest.mark.parametrize("world_size", [3, 1000])
@pytest.mark.parametrize("top", [8.0, math.nan])
def test_lowest_rank_has_maximum(top: float, world_size: int) -> None:
    """The lowest rank has a maximum that several share, and a NaN stays, in a job of any size."""
    plan = PackingPlan(1, 4, world_size)
    ranks = [[1.0, top if rank == 1 else 7.0, ABSENT, 5.0, 2.0 * (rank > 0)] for rank in range(world_size)]
    reduced = add_up([plan.pack(1, values, rank) for rank, values in enumerate(ranks)])
    assert plan.unpack(reduced, 1) == pytest.approx(
        [world_size, top, ABSENT, 5.0, 2.0, 1.0, 0.0, 0.0, 1.0], nan_ok=True
    )


@pytest.mark.parametrize("steps", [(5, 6), (6, 4), (5, 4)])
def test_different_steps_give_nothing(steps: tuple[int, int]) -> None:
    """Ranks at different steps each see the mismatch, and the vector gives no values."""
    plan = PackingPlan(1, 1, 2)
    reduced = add_up([plan.pack(step, [1.0, 1.0], rank) for rank, step in enumerate(steps)])
    assert [plan.unpack(reduced, step) for step in steps] == [None, None]


LATE = st.tuples(st.integers(0, 5), st.floats(allow_nan=False), st.floats(0.5, 2.0**20))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(LATE, max_size=4, unique_by=lambda late: late[0]), min_size=1, max_size=6), st.integers(1, 2**31)
)
def test_late_slots_add_up(ranks: list[list[tuple[int, float, float]]], step: int) -> None:
    """Each late key's total and weight are those of the ranks that have it; a vector that is used again has none of
    them; the other values stay as they are.
    """
    plan = PackingPlan.of(LAYOUT, len(ranks), 6)
    packed = [plan.pack(step, [1.0] * (plan.sums + plan.peaks), rank) for rank in range(len(ranks))]
    for own, late in zip(packed, ranks, strict=True):
        for number, total, weight in late:
            plan.late.put(own.doubles, number, LateValue(Metric("late"), total, weight))
    reduced = add_up(packed)
    slots = {slot.number: slot for slot in plan.late.slots(reduced.doubles)}
    assert slots.keys() == {number for late in ranks for number, _, _ in late}
    for number, slot in slots.items():
        values = [value for late in ranks for value in late if value[0] == number]
        assert slot.weight == pytest.approx(math.fsum(weight for _, _, weight in values))
        assert slot.total == pytest.approx(sum(total for _, total, _ in values), nan_ok=True)
    assert plan.late.lanes(reduced.doubles) == []
    unpacked = plan.unpack(reduced, step)
    assert unpacked is not None
    assert unpacked[0] == len(ranks)
    again = plan.pack(step, [1.0] * (plan.sums + plan.peaks), 0, reduced)
    assert plan.late.slots(again.doubles) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.integers(0, LANES - 1))
@example([0, 2**40], 0)
def test_lane_has_one_step(steps: list[int], lane: int) -> None:
    """A lane tells the step that all its ranks mean, and that they mean several; the next ones are empty."""
    plan = PackingPlan.of(LAYOUT, len(steps), 6)
    packed = [plan.pack(1, [1.0] * (plan.sums + plan.peaks), rank) for rank in range(len(steps))]
    for own, step in zip(packed, steps, strict=True):
        plan.late.log(own.doubles, lane, 5, LateValue(Metric("late"), 2.0, 1.0, step))
    reduced = add_up(packed)
    (taken,) = plan.late.lanes(reduced.doubles)
    assert (taken.lane, taken.step) == (lane, steps[0] if len(set(steps)) == 1 else None)
    assert taken.slots == [(5, 2.0 * len(steps), float(len(steps)))]
    assert plan.late.slots(reduced.doubles) == []
