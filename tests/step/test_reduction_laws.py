"""One SUM over the ranks gives what a replay of each rank's events gives, whatever the ranks do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.catalogue import RANK_SUFFIX, Layout, Metric, Reduction, rows
from otel_train.ledger import StateLedger
from otel_train.mixing import MixingMeter
from otel_train.step.packing import PackingPlan
from otel_train.step.recorder import Recorder
from tests.support.replay import Drain, RankReplay, join

MODALITIES = ("a", "b", "c")
SCALARS = (Metric("mean"), Metric("sum", Reduction.SUM), Metric("max", Reduction.MAX), Metric("min", Reduction.MIN))
NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
STEP = st.fixed_dictionaries(
    {
        "picks": st.lists(st.integers(0, 4), max_size=9),
        "stores": st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=2),
        "scalar": st.none() | NUMBERS,
        "close": st.none() | st.integers(0, 4),
        "weights": st.none() | st.tuples(*[st.integers(0, 3)] * 3).filter(any),
    }
)
RANK_PLANS = st.fixed_dictionaries(
    {
        "slots": st.lists(st.sampled_from(MODALITIES), max_size=5),
        "capacity": st.integers(1, 3),
        "steps": st.lists(STEP, min_size=3, max_size=3),
    }
)


@dataclass
class ReplayedRank:
    """A rank's sources, its recorder, and its events replayed."""

    meter: MixingMeter
    ledger: StateLedger
    recorder: Recorder
    replay: RankReplay

    @classmethod
    def of(cls, plan: dict[str, Any]) -> ReplayedRank:
        """Return a rank with its slots open; it may have none."""
        replay = RankReplay(horizon=20.0, ring_size=plan["capacity"])

        def feed(event: dict[str, Any]) -> None:
            replay.feed(event)

        # Ranks may differ in the number of slots; one that has none keeps an empty one.
        meter = MixingMeter(
            max(1, len(plan["slots"])), MODALITIES, dict.fromkeys(MODALITIES, 1), horizon=20.0, events=feed
        )
        for slot, modality in enumerate(plan["slots"]):
            meter.open(slot, modality)
        ledger = StateLedger((1,), capacity=plan["capacity"], events=feed)
        return cls(meter, ledger, Recorder([meter, ledger], SCALARS), replay)

    def run(self, step: int, plan: dict[str, Any]) -> tuple[Sequence[float], Drain]:
        """Make a step and end its interval."""
        if plan["weights"] is not None:
            self.meter.set_weights(dict(zip(MODALITIES, plan["weights"], strict=True)))
        held = [slot for slot, modality in enumerate(self.meter.modality_for_reader) if modality is not None]
        for slot in plan["picks"]:
            if slot in held:
                self.meter.log_pick(slot, "stream", 7)
        if plan["close"] in held:
            self.meter.close(plan["close"])
        for keys in plan["stores"]:
            self.ledger.store(keys, torch.zeros(len(keys), 1))
        scalars = {} if plan["scalar"] is None else {metric.name: plan["scalar"] for metric in SCALARS}
        self.recorder.add(scalars)
        measured = self.recorder.drain(step, (0.5, 1, 0.25))
        drain = self.replay.feed({"event": "drain", "step": step})
        assert drain is not None
        return measured, drain


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
