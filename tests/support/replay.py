"""Replay a job's events and compute each step's cluster-wide headline values anew, from METRICS.md alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import wandb_history

COUNTED = ("evictions", "stale_evictions", "fresh_writes", "false_evictions")
WHY = {"overflow": "evictions", "stale": "stale_evictions"}


@dataclass
class Drain:
    """Measurements of one rank in one interval."""

    step: int
    counts: Counter[str]
    ages: list[int]
    realised: dict[str, float]
    target: dict[str, float]
    tokens: Counter[str]


@dataclass
class RankReplay:
    """One rank, moved on by its events in their order."""

    horizon: float
    ring_size: int
    shares: dict[str, float] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)  # active slot: step of its last pick, else of its opening
    before: str | None = None
    realised: dict[str, float] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)
    picks: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)
    held: set[int] = field(default_factory=set)
    ring: dict[int, None] = field(default_factory=dict)  # oldest eviction first
    counts: Counter[str] = field(default_factory=Counter)

    def feed(self, event: dict[str, Any]) -> Drain | None:
        """Take one event; return the interval that it ends, if it does."""
        match event["event"]:
            case "weights":
                whole = math.fsum(event["weights"].values())
                self.shares = {modality: weight / whole for modality, weight in event["weights"].items()}
            case "open":
                self.used[event["slot"]] = event["step"]
            case "restart":
                self.counts["restarts"] += 1
            case "close":
                del self.used[event["slot"]]
            case "pick":
                self.pick(event["slot"], event["step"], event["modality"])
                self.tokens[event["modality"]] += event["tokens"]
            case "store":
                self.store(event["key"])
            case "evict":
                self.evict(event["key"], WHY[event["why"]])
            case "wipe":
                self.held.clear()
                self.ring.clear()
            case "drain":
                return self.drain(event["step"])
            case other:
                raise ValueError(f"unknown event {other!r}")
        return None

    def pick(self, slot: int, step: int, modality: str) -> None:
        self.used[slot] = step
        self.picks.append((modality, self.shares))
        if self.before is not None:
            self.counts["pairs"] += 1
            self.counts["switches"] += modality != self.before
        self.before = modality

    def store(self, key: int) -> None:
        if key in self.held:
            return
        self.held.add(key)
        self.counts["fresh_writes"] += 1
        if key in self.ring:
            del self.ring[key]
            self.counts["false_evictions"] += 1

    def evict(self, key: int, name: str) -> None:
        self.held.remove(key)
        self.counts[name] += 1
        self.ring.pop(key, None)
        self.ring[key] = None
        while len(self.ring) > self.ring_size:
            del self.ring[next(iter(self.ring))]

    def drain(self, step: int) -> Drain:
        self.counts["picks"] = len(self.picks)
        keep = math.exp(-len(self.picks) / self.horizon)
        modalities = {*self.realised, *self.target, *self.shares}
        modalities |= {name for modality, shares in self.picks for name in (modality, *shares)}
        self.realised = {
            name: keep * self.realised.get(name, 0.0) + sum(modality == name for modality, _ in self.picks)
            for name in modalities
        }
        self.target = {
            name: keep * self.target.get(name, 0.0) + math.fsum(shares.get(name, 0.0) for _, shares in self.picks)
            for name in modalities
        }
        ages = [step - used for used in self.used.values()]
        ended = Drain(step, self.counts, ages, self.realised, self.target, self.tokens)
        self.counts, self.picks, self.tokens = Counter(), [], Counter()
        return ended


def replay(directory: Path) -> list[dict[str, float]]:
    """Return the cluster-wide values of each drained step in order, by wandb key, with "train/step".

    Args:
        directory: A run's output, with `result.json` and `events/rank<r>.jsonl`.

    Raises:
        ValueError: The ranks did not drain the same steps.
    """
    result = json.loads((directory / "result.json").read_text())
    by_rank: list[list[Drain]] = []
    for number in range(result["world_size"]):
        rank = RankReplay(result["mix_horizon"], result["ledger"]["recently_evicted"])
        lines = (directory / "events" / f"rank{number}.jsonl").read_text().splitlines()
        drains = [drain for line in lines if (drain := rank.feed(json.loads(line)))]
        if by_rank and [drain.step for drain in drains] != [drain.step for drain in by_rank[0]]:
            raise ValueError(
                f"ranks 0 and {number} drained different steps: "
                f"{[drain.step for drain in by_rank[0]]} and {[drain.step for drain in drains]}"
            )
        by_rank.append(drains)
    return [join(drains) for drains in zip(*by_rank, strict=True)]


def join(drains: tuple[Drain, ...]) -> dict[str, float]:
    """Return the cluster-wide values of one drained step."""
    sums: Counter[str] = sum((drain.counts for drain in drains), Counter())
    ages = [age for drain in drains for age in drain.ages]
    modalities = sorted({name for drain in drains for name in drain.realised})
    values: dict[str, float] = {
        "train/step": drains[0].step,
        "stream_mixing/picks": sums["picks"],
        "stream_mixing/active_readers": len(ages),
        "stream_mixing/restarts": sums["restarts"],
        "stream_mixing/staleness_mean": sum(ages) / len(ages) if ages else 0.0,
        "stream_mixing/staleness_max": max(ages, default=0),
        "stream_mixing/switch_rate": sums["switches"] / sums["pairs"] if sums["pairs"] else 0.0,
        "stream_mixing/mix_divergence": divergence(
            [math.fsum(drain.realised.get(name, 0.0) for drain in drains) for name in modalities],
            [math.fsum(drain.target.get(name, 0.0) for drain in drains) for name in modalities],
        ),
    }
    for name in COUNTED:
        values[f"ledger/{name}"] = sums[name]
        values[f"ledger/{name}_max"] = max(drain.counts[name] for drain in drains)
    return values


def by_modality(drain: Drain, modalities: Iterable[str]) -> dict[str, float]:
    """Return one rank's values of each modality: shares and targets, 0 before any pick, and tokens."""
    values: dict[str, float] = {}
    for name in modalities:
        for key, counts in (("modality_share", drain.realised), ("modality_target", drain.target)):
            whole = math.fsum(counts.values())
            values[f"stream_mixing/{key}/{name}"] = counts[name] / whole if whole else 0.0
        values[f"stream_mixing/tokens/{name}"] = drain.tokens[name]
    return values


def divergence(realised: list[float], target: list[float]) -> float:
    """Return the Jensen-Shannon divergence in bits of two sets of counts, each normalised; 0 before any pick."""
    if not sum(realised) or not sum(target):
        return 0.0
    terms = []
    for count, target_count in zip(realised, target, strict=True):
        p, q = count / math.fsum(realised), target_count / math.fsum(target)
        if p + q:
            # With d = (p - q) / (p + q) a term is (p + q) / 4 times (1 + d) ln(1 + d) + (1 - d) ln(1 - d), written
            # so that nothing cancels where the two are nearly equal.
            d = (p - q) / (p + q)
            bend = 2 * math.log(2) if abs(d) == 1 else math.log1p(-d * d) + 2 * d * math.atanh(d)
            terms.append((p + q) / 4 * bend)
    return math.fsum(terms) / math.log(2)


def assert_rows_equal_replay(directory: Path) -> None:
    """Compare the rows that wandb reads from its file with the replay: integers exactly, the others to 1e-9."""
    result = json.loads((directory / "result.json").read_text())
    rows, expected = wandb_history(directory / result["wandb_file"]), replay(directory)
    assert [row["train/step"] for row in rows] == [values["train/step"] for values in expected]
    assert {row["train/ranks"] for row in rows} == {result["world_size"]}
    for row, values in zip(rows, expected, strict=True):
        for key, value in values.items():
            exact = isinstance(value, int) or float(value).is_integer()
            assert row[key] == (value if exact else pytest.approx(value, rel=1e-9, abs=0)), (values["train/step"], key)
