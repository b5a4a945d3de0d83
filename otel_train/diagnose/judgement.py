"""Judge a run: each headline metric's curve against its healthy range. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_train.catalogue import (
    HEADLINE_KEYS,
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Per,
    Statistic,
    headline_row,
    rows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric's figures over a run, and whether they are healthy."""

    key: str
    """The wandb key."""
    last: float
    mean: float
    max: float
    judged: float
    """The figure that was compared: the range's statistic, divided by what the range says."""
    range: HealthyRange
    healthy: bool
    worst_rank: int | None
    """The rank that had the largest value, where the metric names it."""
    remedy: str
    """What to do; empty when it is healthy."""


def judge(
    history: Sequence[Mapping[str, float]], world_size: int, healthy_range: Callable[[str], HealthyRange]
) -> list[Judgement]:
    """Judge each headline key.

    A `_max` key is multiplied by the world size first, as if every rank were like the worst, so that one range
    serves a metric and its maximum.

    Args:
        history: One row of values by wandb key for each log step.
        world_size: Number of ranks.
        healthy_range: The range of a key.

    Returns:
        One judgement for each of `HEADLINE_KEYS`; a metric that is missing from a row is unhealthy.
    """
    picks = _mean([row.get(rows.PICKS.wandb_key, 0.0) for row in history])
    return [
        judge_key(
            key,
            [float(row.get(key, math.nan)) for row in history] or [math.nan],
            scale_of(key, wanted := healthy_range(key), picks, world_size),
            wanted,
            _worst_rank(key, history),
        )
        for key in HEADLINE_KEYS
    ]


def judge_key(
    key: str, values: Sequence[float], scale: float, wanted: HealthyRange, worst_rank: int | None = None
) -> Judgement:
    """Judge one headline key.

    Args:
        key: The headline key.
        values: Its value at each log step.
        scale: What `scale_of` gives.
        wanted: Its range.
        worst_rank: The rank that had the largest value.
    """
    figures = {Statistic.LAST: values[-1], Statistic.MEAN: _mean(values), Statistic.MAX: _max(values)}
    judged = figures[wanted.statistic] * scale
    return Judgement(
        key=key,
        last=figures[Statistic.LAST],
        mean=figures[Statistic.MEAN],
        max=figures[Statistic.MAX],
        judged=judged,
        range=wanted,
        healthy=judged in wanted,
        worst_rank=worst_rank,
        remedy="" if judged in wanted else headline_row(key).remedy,
    )


def scale_of(key: str, wanted: HealthyRange, picks: float, world_size: int) -> float:
    """Return what a key's value is multiplied by before it is compared with its range; NaN where that is not known.

    Args:
        key: The headline key.
        wanted: Its range.
        picks: The mean of the picks of a log step.
        world_size: Number of ranks; 0 where it is not known.
    """
    divisor = {Per.CLUSTER: 1.0, Per.RANK: float(world_size), Per.PICK: picks}[wanted.per]
    ranks = world_size if key == headline_row(key).wandb_key + MAX_SUFFIX else 1
    return ranks / divisor if divisor and ranks else math.nan


def _worst_rank(key: str, history: Sequence[Mapping[str, float]]) -> int | None:
    """Return the rank named beside the largest value of a metric's maximum."""
    row = headline_row(key)
    peak = row.wandb_key + MAX_SUFFIX if row.with_max else row.wandb_key
    named = [each for each in history if peak in each and peak + RANK_SUFFIX in each]
    return int(max(named, key=lambda each: each[peak])[peak + RANK_SUFFIX]) if named else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _max(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)
