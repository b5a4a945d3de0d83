"""Compute every headline value of a run anew from its ranks' events. Shares nothing with the package, on purpose.

Written from the definitions alone: each rank's file is gone through event by event, and the ranks' measurements are
then joined for each drained step. Where a denominator is 0 the value is 0.
"""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEDGER_COUNTS = ("evictions", "stale_evictions", "fresh_writes", "false_evictions")


@dataclass
class Interval:
    """What one rank measured up to a drain."""

    step: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ages: list[int] = field(default_factory=list)
    picked: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)


class Rank:
    """One rank's state, moved on by one event at a time."""

    def __init__(self, horizon: float, remembered: int) -> None:
        self.horizon, self.remembered = horizon, remembered
        self.last_use: dict[int, int] = {}
        self.shares: dict[str, float] = {}
        self.previous: str | None = None
        self.picked: defaultdict[str, float] = defaultdict(float)
        self.wanted: defaultdict[str, float] = defaultdict(float)
        self.new_picked: defaultdict[str, float] = defaultdict(float)
        self.new_wanted: defaultdict[str, float] = defaultdict(float)
        self.held: set[int] = set()
        self.evicted: OrderedDict[int, None] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.intervals: list[Interval] = []

    def on_weights(self, event: dict[str, Any]) -> None:
        total = math.fsum(event["weights"].values())
        self.shares = {modality: weight / total for modality, weight in event["weights"].items()}

    def on_open(self, event: dict[str, Any]) -> None:
        self.last_use[event["slot"]] = event["step"]

    def on_restart(self, _event: dict[str, Any]) -> None:
        self.counts["restarts"] += 1

    def on_close(self, event: dict[str, Any]) -> None:
        del self.last_use[event["slot"]]

    def on_pick(self, event: dict[str, Any]) -> None:
        self.counts["picks"] += 1
        self.last_use[event["slot"]] = event["step"]
        self.new_picked[event["modality"]] += 1
        for modality, share in self.shares.items():
            self.new_wanted[modality] += share
        if self.previous is not None:
            self.counts["pairs"] += 1
            self.counts["switches"] += self.previous != event["modality"]
        self.previous = event["modality"]

    def on_store(self, event: dict[str, Any]) -> None:
        key = event["key"]
        if key in self.held:
            return
        self.held.add(key)
        self.counts["fresh_writes"] += 1
        if key in self.evicted:
            self.counts["false_evictions"] += 1
            del self.evicted[key]

    def on_evict(self, event: dict[str, Any]) -> None:
        key = event["key"]
        self.held.remove(key)
        self.counts["evictions" if event["why"] == "overflow" else "stale_evictions"] += 1
        self.evicted.pop(key, None)
        self.evicted[key] = None
        while len(self.evicted) > self.remembered:
            self.evicted.popitem(last=False)

    def on_wipe(self, _event: dict[str, Any]) -> None:
        self.held.clear()
        self.evicted.clear()

    def on_drain(self, event: dict[str, Any]) -> None:
        keep = math.exp(-self.counts["picks"] / self.horizon)
        for old, new in ((self.picked, self.new_picked), (self.wanted, self.new_wanted)):
            for modality in self.shares:
                old[modality] = old[modality] * keep + new[modality]
            new.clear()
        ages = [event["step"] - used for used in self.last_use.values()]
        self.intervals.append(Interval(event["step"], self.counts, ages, dict(self.picked), dict(self.wanted)))
        self.counts = Counter()


def replay(directory: Path) -> list[dict[str, float]]:
    """Return the cluster-wide values of each drained step, by wandb key, with "train/step".

    Args:
        directory: A run's output, with `result.json` and `events/rank<r>.jsonl`.

    Raises:
        ValueError: The ranks did not drain the same steps.
    """
    result = json.loads((directory / "result.json").read_text())
    ranks = []
    for number in range(result["world_size"]):
        rank = Rank(result["mix_horizon"], result["ledger"]["recently_evicted"])
        for line in (directory / "events" / f"rank{number}.jsonl").read_text().splitlines():
            event = json.loads(line)
            getattr(rank, f"on_{event['event']}")(event)
        ranks.append(rank.intervals)
    return [join(intervals) for intervals in zip(*ranks, strict=True)]


def join(intervals: tuple[Interval, ...]) -> dict[str, float]:
    """Return the cluster-wide values of one step from those of its ranks."""
    steps = {interval.step for interval in intervals}
    if len(steps) > 1:
        raise ValueError(f"the ranks drained different steps at the same time: {sorted(steps)}")
    sums: Counter[str] = Counter()
    for interval in intervals:
        sums.update(interval.counts)
    ages = [age for interval in intervals for age in interval.ages]
    values: dict[str, float] = {
        "train/step": steps.pop(),
        "stream_mixing/picks": sums["picks"],
        "stream_mixing/active_readers": len(ages),
        "stream_mixing/restarts": sums["restarts"],
        "stream_mixing/staleness_mean": sum(ages) / len(ages) if ages else 0.0,
        "stream_mixing/staleness_max": max(ages, default=0),
        "stream_mixing/switch_rate": sums["switches"] / sums["pairs"] if sums["pairs"] else 0.0,
        "stream_mixing/mix_divergence": jensen_shannon(
            total(interval.picked for interval in intervals), total(interval.wanted for interval in intervals)
        ),
    }
    for name in LEDGER_COUNTS:
        values[f"ledger/{name}"] = sums[name]
        values[f"ledger/{name}_max"] = max(interval.counts[name] for interval in intervals)
    return values


def total(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the ranks' counts by modality, added up."""
    added: dict[str, float] = {}
    for part in parts:
        for modality, count in part.items():
            added[modality] = added.get(modality, 0.0) + count
    return added


def jensen_shannon(picked: dict[str, float], wanted: dict[str, float]) -> float:
    """Return H((p + q) / 2) - (H(p) + H(q)) / 2 in bits, of the shares of two sets of counts; 0 before any pick."""
    if not sum(picked.values()):
        return 0.0
    p = [picked[modality] / sum(picked.values()) for modality in wanted]
    q = [wanted[modality] / sum(wanted.values()) for modality in wanted]
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return entropy(middle) - (entropy(p) + entropy(q)) / 2


def entropy(shares: list[float]) -> float:
    """Return Shannon's entropy in bits."""
    return -math.fsum(share * math.log2(share) for share in shares if share)
