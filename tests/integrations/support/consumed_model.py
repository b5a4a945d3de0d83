"""
The cluster's values of each step, computed from the rows that the loops of all ranks consumed.

Written from the definitions of METRICS.md, one row at a time: it shares nothing with the meter but the metrics' keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_train.catalogue import rows
from tests.integrations.support.case_loop import SAVED_AFTER

HORIZON = 4096
STARVED = -math.log(1e-6)


@dataclass
class RankModel:
    """One rank's part of the mix."""

    shares: Mapping[str, float]
    by_batch: bool = False
    """Whether a batch's rows are one draw."""
    counts: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    """Step of each source's last pick."""
    missed: dict[str, int] = field(default_factory=dict)
    """Draws since each source's last one."""
    passes: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    """Step in which each source that came later began."""
    previous: str | None = None

    def change(self, step: int, shares: Mapping[str, float]) -> None:
        """Go on with other sources: what those that are gone have counted is dropped, the new ones begin."""
        self.begun = {source: self.begun.get(source, 1) if source in self.shares else step for source in shares}
        for counts in (self.counts, self.targets, self.last, self.missed, self.passes):
            for source in set(counts) - set(shares):
                del counts[source]
        self.previous = self.previous if self.previous in shares else None
        self.shares = shares

    def take(self, step: int, consumed: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Take the rows of a step and return what this rank adds to the cluster's values."""
        pairs = switches = restarts = 0
        tokens = dict.fromkeys(self.shares, 0)
        keep = math.exp(-len(consumed) / HORIZON)
        for source in self.shares:
            self.counts[source] = self.counts.get(source, 0) * keep
            self.targets[source] = self.targets.get(source, 0) * keep + len(consumed) * self.shares[source]
        for source, newest in newest_passes(consumed).items():
            restarts += max(0, newest - self.passes.get(source, newest))
            self.passes[source] = max(newest, self.passes.get(source, newest))
        for source, length, _ in consumed:
            tokens[source] += length
            self.counts[source] += 1
            self.last[source] = step
        for source, _, _ in consumed[:1] if self.by_batch else consumed:
            pairs += self.previous is not None
            switches += self.previous not in (None, source)
            self.previous = source
            self.missed = {other: self.missed.get(other, 0) + 1 for other in self.shares} | {source: 0}
        return {
            "picks": len(consumed),
            "ages": [step - self.last.get(source, self.begun.get(source, 1)) for source in self.shares],
            "pairs": pairs,
            "switches": switches,
            "restarts": restarts,
            "tokens": tokens,
            "starved": sum(
                -self.missed.get(source, 0) * math.log1p(-share) > STARVED
                for source, share in self.shares.items()
                if share < 1
            ),
        }


def newest_passes(consumed: Sequence[Sequence[Any]]) -> dict[str, int]:
    """Return the newest pass of each source among some rows."""
    newest: dict[str, int] = {}
    for source, _, repeat in consumed:
        newest[source] = max(repeat, newest.get(source, 0))
    return newest


def expected_values(
    ranks: Sequence[Sequence[Any]],
    weights: Mapping[str, float],
    unit: str = "row",
    scope: str = "rank",
    later: Mapping[str, float] | None = None,
) -> list[dict[str, float]]:
    """Return each step's values by wandb key.

    Args:
        ranks: For each rank, its steps' rows: source, tokens, number of the pass.
        weights: Weight by source.
        unit: Of a draw: a row, or a rank's batch, all of one source.
        scope: Rows that hold the mix: each rank's, or those of all ranks, where no rank's own wait means anything.
        later: Weights after `SAVED_AFTER` steps, if they are others.
    """
    models = [RankModel(shares_of(weights), unit == "batch") for _ in ranks]
    values = []
    for step, by_rank in enumerate(zip(*ranks, strict=True), start=1):
        if later is not None and step == SAVED_AFTER + 1:
            for model in models:
                model.change(step, shares_of(later))
        parts = [model.take(step, consumed) for model, consumed in zip(models, by_rank, strict=True)]
        values.append(joined(parts, models))
        if scope == "cluster":
            values[-1][rows.STARVED_READERS.wandb_key] = 0
    return values


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Return each source's part of the picks."""
    whole = sum(weights.values())
    return {source: weight / whole for source, weight in weights.items()}


def joined(parts: Sequence[Mapping[str, Any]], models: Sequence[RankModel]) -> dict[str, float]:
    """Return the cluster's values of a step."""
    total = {name: sum(part[name] for part in parts) for name in ("picks", "pairs", "switches", "restarts", "starved")}
    ages = [age for part in parts for age in part["ages"]]
    sources = list(models[0].shares)
    realised = normalised([sum(model.counts[source] for model in models) for source in sources])
    target = normalised([sum(model.targets[source] for model in models) for source in sources])
    values: dict[str, float] = {
        rows.PICKS.wandb_key: total["picks"],
        rows.ACTIVE_READERS.wandb_key: len(ages),
        rows.RESTARTS.wandb_key: total["restarts"],
        rows.STALENESS_MEAN.wandb_key: sum(ages) / len(ages),
        rows.STALENESS_MAX.wandb_key: max(ages),
        rows.SWITCH_RATE.wandb_key: total["switches"] / total["pairs"] if total["pairs"] else 0.0,
        rows.MIX_DIVERGENCE.wandb_key: jensen_shannon(realised, target),
        rows.STARVED_READERS.wandb_key: total["starved"],
    }
    for index, source in enumerate(sources):
        values[f"{rows.MODALITY_SHARE.wandb_key}/{source}"] = realised[index]
        values[f"{rows.MODALITY_TARGET.wandb_key}/{source}"] = target[index]
        values[f"{rows.TOKENS.wandb_key}/{source}"] = sum(part["tokens"][source] for part in parts)
    return values


def normalised(counts: Sequence[float]) -> list[float]:
    """Return the parts of a whole."""
    whole = math.fsum(counts)
    return [count / whole if whole else 0.0 for count in counts]


def jensen_shannon(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the divergence of two distributions, base 2."""
    middle = [(one + other) / 2 for one, other in zip(left, right, strict=True)]
    return sum(
        share * math.log2(share / mean) / 2
        for shares in (left, right)
        for share, mean in zip(shares, middle, strict=True)
        if share
    )
