"""Ranks that make made-up steps, each with a replay of its events beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from otel_train.catalogue import Metric, Reduction
from otel_train.ledger import StateLedger
from otel_train.mixing import MixingMeter
from otel_train.step.recorder import Recorder
from tests.support.replay import Drain, RankReplay

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
