"""One SUM over the ranks gives what a replay of each rank's events gives, whatever the ranks do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.catalogue import RANK_SUFFIX, Layout, rows
from otel_train.mixing import MixingMeter
from otel_train.step.packing import PackingPlan
from tests.support.replay import join
from tests.support.replayed_ranks import RANK_PLANS, ReplayedRank


@settings(max_examples=60, deadline=None)
@given(st.lists(RANK_PLANS, min_size=1, max_size=8), st.randoms())
def test_reduction_equals_event_replay(plans: list[dict[str, Any]], random: Any) -> None:
    """The reduction equals a replay of every rank's events: ranks without picks, readers or traffic, of other sizes
    and weights, with NaN.
    """
    ranks = [ReplayedRank.of(plan) for plan in plans]
    layout = ranks[0].recorder.layout
    packing = PackingPlan.of(layout, len(ranks))
    for step in (1, 2, 3):
        made = [rank.run(step, plan["steps"][step - 1]) for rank, plan in zip(ranks, plans, strict=True)]
        packed = [packing.pack(step, measured, number) for number, (measured, _) in enumerate(made)]
        random.shuffle(packed)
        for other in packed[1:]:  # as a collective does it; torch's sum over a dimension begins with a zero
            packed[0].vector.add_(other.vector)
        reduced = packing.unpack(packed[0], step)
        assert reduced is not None
        values = layout.by_key(*layout.split(reduced))
        for key, value in join(tuple(drain for _, drain in made)).items():
            if key != rows.STEP.wandb_key:
                exact = float(value).is_integer()
                assert values[key] == (value if exact else pytest.approx(value, rel=1e-9, abs=0)), key
        # The lowest rank that has a maximum is named.
        drains = [drain for _, drain in made]
        oldest = [max(drain.ages, default=-1) for drain in drains]
        named = values.get(rows.STALENESS_MAX.wandb_key + RANK_SUFFIX)
        assert named == (oldest.index(max(oldest)) if max(oldest) >= 0 else None)
        evicted = [drain.counts["evictions"] for drain in drains]
        assert values[f"{rows.EVICTIONS.wandb_key}_max{RANK_SUFFIX}"] == evicted.index(max(evicted))
        # A NaN stays in its scalar, and a scalar without a value is absent.
        scalars = [plan["steps"][step - 1]["scalar"] for plan in plans if plan["steps"][step - 1]["scalar"] is not None]
        plain: dict[str, float] = {}
        if scalars:
            broken = any(math.isnan(value) for value in scalars)
            total = sum(scalars, start=0.0)
            plain |= {"sum": total, "mean": total / len(scalars)}
            plain |= {"max": math.nan if broken else max(scalars), "min": math.nan if broken else min(scalars)}
        for name in ("sum", "mean", "max", "min"):
            expected = plain.get(name)
            if expected is None:
                assert name not in values
            else:
                assert values[name] == pytest.approx(expected, rel=1e-9, abs=1e-6, nan_ok=True), name


def test_mean_weighs_readers_not_ranks() -> None:
    """A mean weighs each reader once: of 1000 readers it is 1 here, where the mean of the ranks' means would be 500."""
    old, young = MixingMeter(1, ["a"], {"a": 1}), MixingMeter(999, ["a"], {"a": 1})
    old.open(0, "a")
    for slot in range(999):
        young.open(slot, "a")
    for step in range(1, 1001):
        old.end_step(step)
        young.end_step(step)
    for slot in range(999):
        young.pick(slot)
    layout = Layout(old.metrics, ["a"])
    sums = [
        sum(pair)
        for pair in zip(*(meter.drain_measurements(1001)[: layout.sums] for meter in (old, young)), strict=True)
    ]
    assert layout.by_key(sums, [0.0] * layout.peaks)[rows.STALENESS_MEAN.wandb_key] == 1
