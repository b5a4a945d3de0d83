"""Compare each headline metric's values over a run with its healthy range. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otel_train.catalogue import (
    HEADLINE_KEYS,
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Per,
    Ranges,
    Statistic,
    headline_row,
    rows,
)
from otel_train.read.curve_points import span_of
from otel_train.read.history import mean

WINDOW = 20
"""Log steps over which a mean is taken to see since when it is out of its range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric's values over a run, and whether they are healthy."""

    key: str
    """The wandb key."""
    last: float
    mean: float
    max: float
    judged: float
    """The value that was compared: the range's statistic, divided as the range says."""
    range: HealthyRange
    healthy: bool
    worst_rank: int | None
    """The rank that had the largest value, where the metric names it."""
    remedy: str
    """Advice; empty when it is healthy."""


def judge(history: Sequence[Mapping[str, float]], world_size: int, ranges: Ranges) -> list[Judgement]:
    """Judge each headline key.

    A `_max` key is multiplied by the world size first, as if every rank were like the worst, so that one range
    serves a metric and its maximum.

    Args:
        history: One row of values by wandb key for each log step.
        world_size: Number of ranks.
        ranges: Gives the range of a key.

    Returns:
        One judgement for each of `HEADLINE_KEYS`; a metric that is missing from a row is unhealthy.
    """
    picks = mean([row.get(rows.PICKS.wandb_key, 0.0) for row in history])
    return [
        judge_key(
            key,
            [float(row.get(key, math.nan)) for row in history] or [math.nan],
            scale_of(key, bounds := ranges(key), picks, world_size),
            bounds,
            _worst_rank(key, history),
        )
        for key in HEADLINE_KEYS
    ]


def judge_key(
    key: str, values: Sequence[float], scale: float, bounds: HealthyRange, worst_rank: int | None = None
) -> Judgement:
    """Judge one headline key.

    Args:
        key: The headline key.
        values: Its value at each log step.
        scale: The result of `scale_of`.
        bounds: Its range.
        worst_rank: The rank that had the largest value.
    """
    statistics = {Statistic.LAST: values[-1], Statistic.MEAN: mean(values), Statistic.MAX: _max(values)}
    judged = statistics[bounds.statistic] * scale
    return Judgement(
        key=key,
        last=statistics[Statistic.LAST],
        mean=statistics[Statistic.MEAN],
        max=statistics[Statistic.MAX],
        judged=judged,
        range=bounds,
        healthy=judged in bounds,
        worst_rank=worst_rank,
        remedy="" if judged in bounds else headline_row(key).remedy,
    )


def scale_of(key: str, bounds: HealthyRange, picks: float, world_size: int) -> float:
    """Return the factor of a key's value before it is compared with its range; NaN where that is not known.

    Args:
        key: The headline key.
        bounds: Its range.
        picks: The mean of the picks of a log step.
        world_size: Number of ranks; 0 where it is not known.
    """
    divisor = {Per.CLUSTER: 1.0, Per.RANK: float(world_size), Per.PICK: picks}[bounds.per]
    ranks = world_size if key == headline_row(key).wandb_key + MAX_SUFFIX else 1
    return ranks / divisor if divisor and ranks else math.nan


def _worst_rank(key: str, history: Sequence[Mapping[str, float]]) -> int | None:
    """Return the rank named beside the largest value of a metric's maximum."""
    metric = headline_row(key)
    peak = metric.wandb_key + MAX_SUFFIX if metric.with_max else metric.wandb_key
    named = [row for row in history if peak in row and peak + RANK_SUFFIX in row]
    return int(max(named, key=lambda row: row[peak])[peak + RANK_SUFFIX]) if named else None


def _max(values: Sequence[float]) -> float:
    span = span_of(values)
    return math.nan if span is None else span[1]
