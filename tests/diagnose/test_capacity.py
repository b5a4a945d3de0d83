"""The capacity advisor, against runs of the same trace on real ledgers of those capacities."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import LEDGER, REUSE_BOUNDS, Layout, rows
from otel_train.diagnose.capacity import advise
from otel_train.ledger import StateLedger
from otel_train.read import History

OFFSETS = Layout(LEDGER).offsets


def run(batches: Sequence[Sequence[int]], capacity: int, ring: int, idle: int | None = None) -> StateLedger:
    """Run the recurrent step, state in and state out, at one capacity."""
    ledger = StateLedger((2,), capacity=capacity, recently_evicted=ring, max_idle_steps=idle)
    for step, batch in enumerate(batches, start=1):
        ledger.store(batch, ledger.fetch(batch).states + 1)
        ledger.end_step(step)
    return ledger


def counted(ledger: StateLedger) -> tuple[float, float, tuple[float, ...]]:
    """Return fresh writes, false evictions and reuse distances."""
    values = ledger.drain_measurements()
    start = OFFSETS[rows.REUSE_DISTANCE.name]
    reuse = tuple(values[start : start + len(REUSE_BOUNDS) + 2])
    return values[OFFSETS[rows.FRESH_WRITES.name]], values[OFFSETS[rows.FALSE_EVICTIONS.name]], reuse


def uneven_batches() -> list[list[int]]:
    """Return 80 batches of 24 streams out of 90, whose use is uneven."""
    rng = random.Random(7)
    return [[int(rng.paretovariate(0.7)) % 90 for _ in range(24)] for _ in range(80)]


@settings(max_examples=50)
@example(uneven_batches(), 16, 128)
@given(st.lists(st.lists(st.integers(0, 24), max_size=9), max_size=20), st.integers(1, 6), st.integers(1, 20))
def test_points_agree_with_runs(batches: list[list[int]], capacity: int, ring: int) -> None:
    """Misses and false evictions equal those of a run at that capacity, for batches of any size."""
    ledger = run(batches, capacity, ring)
    facts = dict(ledger.facts)
    fresh, false, reuse = counted(ledger)
    plan = advise(History("a trace", "run", world_size=1, reuse=reuse, facts=dict(facts)))
    if plan is None:
        assert false == 0
        return
    assert (plan.points[0].left, plan.points[-1].left, plan.caveats) == (false, 0, ())
    for point in plan.points:
        # The ring of a larger shard begins later; with as much less of it both reach as far.
        reach = ring - (point.capacity - capacity)
        fresh_then, false_then, _ = counted(run(batches, point.capacity, max(1, reach)))
        assert fresh_then == fresh - (false - point.left)
        assert reach < 1 or false_then == point.left


def test_advice_is_just_enough() -> None:
    """The advice for each share saves it, and the next smaller capacity does not."""
    ledger = run(uneven_batches(), 16, 128)
    facts = dict(ledger.facts)
    plan = advise(History("a trace", "run", world_size=1, reuse=counted(ledger)[2], facts=dict(facts)))
    assert plan is not None
    left = {point.capacity: point.left for point in plan.points}
    for advice in plan.advice:
        assert left[advice.point.capacity] <= (1 - advice.share) * plan.false_evictions < left[advice.too_small]
    assert [advice.share for advice in plan.advice] == [0.5, 0.9, 0.99]
    assert plan.reach == 16 + 128
    assert plan.points[1].extra_bytes == 8  # one entry more, of two float32


def test_idle_drops_make_estimates() -> None:
    """A shard that drops unused entries is not a stack: a larger one would drop them too, as a caveat says."""
    ledger = run([[1, 2], [3], [4], [1, 2]], 2, 8, idle=1)
    facts = dict(ledger.facts)
    plan = advise(History("a trace", "run", reuse=counted(ledger)[2], facts=dict(facts)))
    assert plan is not None
    assert ["after 1 steps at any capacity" in caveat for caveat in plan.caveats] == [True]
    assert "about" in plan.remedy()


@pytest.mark.parametrize("stores_again", [True, False])
def test_unstored_fetch_makes_estimate(stores_again: bool) -> None:
    """A fetch alone uses a held entry and not a missing one, so that the order depends on the capacity."""

    def misses(capacity: int) -> float:
        ledger = StateLedger((1,), capacity=capacity, recently_evicted=8)
        for key in (1, 2, 3):
            ledger.store([key], torch.zeros(1, 1))
        ledger.fetch([1])
        if stores_again:
            ledger.store([1], torch.zeros(1, 1))
        for key in (4, 2):
            ledger.store([key], torch.zeros(1, 1))
        return ledger.drain_measurements()[OFFSETS[rows.FRESH_WRITES.name]]

    def estimated() -> float:
        ledger = StateLedger((1,), capacity=2, recently_evicted=8)
        for key in (1, 2, 3, 1, 4, 2) if stores_again else (1, 2, 3, 4, 2):
            ledger.store([key], torch.zeros(1, 1))
        fresh, _, reuse = counted(ledger)
        return fresh - reuse[0]

    assert (misses(3) == estimated()) is stores_again
