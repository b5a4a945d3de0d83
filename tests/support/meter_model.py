"""A mixing meter, written from the definitions, and any sequence of actions that a meter and its model do."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from otel_train.catalogue import divergence, rows
from otel_train.mixing import MixingMeter

MODALITIES = ("a", "b", "c")


def meter_actions() -> st.SearchStrategy[list[tuple[str, Any, Any]]]:
    """Return lists of (action, slot, value)."""
    return st.lists(
        st.one_of(
            st.tuples(st.just("open"), st.integers(0, 2), st.sampled_from(MODALITIES)),
            st.tuples(st.just("pick"), st.integers(0, 2), st.integers(1, 3)),
            st.tuples(st.just("restart"), st.integers(0, 2), st.sampled_from(MODALITIES)),
            st.tuples(st.just("close"), st.integers(0, 2), st.none()),
            st.tuples(st.just("weights"), st.integers(0, 3), st.integers(1, 3)),
            st.tuples(st.just("drain"), st.none(), st.none()),
            st.tuples(st.just("skip"), st.none(), st.none()),
        ),
        max_size=60,
    )


class MeterModel:
    """The definitions of METRICS.md, one event at a time."""

    def __init__(self, horizon: float) -> None:
        self.horizon, self.step = horizon, 1
        self.open: dict[int, str] = {}
        self.last: dict[int, int] = {}
        self.shares = [1 / 3] * 3
        self.previous: str | None = None
        self.c, self.t = [0.0] * 3, [0.0] * 3
        self.begin()

    def begin(self) -> None:
        """Begin an interval."""
        self.picks: list[tuple[str, list[float], bool | None]] = []
        self.restarts = 0
        self.tokens = dict.fromkeys(MODALITIES, 0)

    def do(self, action: str, slot: Any, value: Any) -> None:
        """Do one action."""
        if action == "open":
            self.open[slot], self.last[slot] = value, self.step
        elif action == "pick":
            for _ in range(value):
                switch = None if self.previous is None else self.previous != self.open[slot]
                self.picks.append((self.open[slot], self.shares, switch))
                self.previous = self.open[slot]
            self.last[slot] = self.step
            self.tokens[self.open[slot]] += 10 * value
        elif action == "restart":
            self.open[slot] = value
            self.restarts += 1
        elif action == "close":
            del self.open[slot]
        elif action == "weights":
            total = slot + value + 1
            self.shares = [slot / total, value / total, 1 / total]

    def drain(self) -> dict[str, float]:
        """End the interval and return its values, by wandb key."""
        keep = math.exp(-len(self.picks) / self.horizon)
        for i, modality in enumerate(MODALITIES):
            self.c[i] = self.c[i] * keep + sum(m == modality for m, _, _ in self.picks)
            self.t[i] = self.t[i] * keep + sum(shares[i] for _, shares, _ in self.picks)
        ages = [self.step - self.last[slot] for slot in self.open]
        switches = [switch for _, _, switch in self.picks if switch is not None]
        values = {
            rows.PICKS.wandb_key: len(self.picks),
            rows.ACTIVE_READERS.wandb_key: len(ages),
            rows.RESTARTS.wandb_key: self.restarts,
            rows.STALENESS_MEAN.wandb_key: sum(ages) / len(ages) if ages else 0,
            rows.STALENESS_MAX.wandb_key: max(ages, default=0),
            rows.SWITCH_RATE.wandb_key: sum(switches) / len(switches) if switches else 0,
            rows.MIX_DIVERGENCE.wandb_key: divergence(self.c, self.t),
        }
        for i, modality in enumerate(MODALITIES):
            values[f"{rows.TOKENS.wandb_key}/{modality}"] = self.tokens[modality]
            values[f"{rows.MODALITY_SHARE.wandb_key}/{modality}"] = self.c[i] / sum(self.c) if any(self.c) else 0
            values[f"{rows.MODALITY_TARGET.wandb_key}/{modality}"] = self.t[i] / sum(self.t) if any(self.t) else 0
        self.begin()
        return values


def drive(meter: MixingMeter, action: str, slot: Any, value: Any) -> None:
    """Do to the meter what `MeterModel.do` does."""
    if action == "open":
        meter.open(slot, value)
    elif action == "pick":
        meter.pick(slot, rows=value, tokens=10 * value)
    elif action == "restart":
        meter.restart(slot, value)
    elif action == "close":
        meter.close(slot)
    elif action == "weights":
        meter.set_weights({"a": slot, "b": value, "c": 1})
