"""A headline metric over a run as its range judges it: the curve in the range's unit, and where it is outside. Pure.

A mean is judged over a window of log steps, as `examine` does to see since when a run is out of range: single
steps of counts in whole picks jump too much to be judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_train.catalogue import MAX_SUFFIX, HealthyRange, Metric, Per, Reduction, Statistic, rows
from otel_train.diagnose.judgement import WINDOW, scale_of, window_means
from otel_train.number_text import grouped_number
from otel_train.read.history import History, mean
from otel_train.report.curves import Point, Stretch, finite, merged, stretches


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCurve:
    """A headline metric over a run."""

    row: Metric
    range: HealthyRange
    curve: Sequence[Point]
    """The judged values."""
    by_step: Sequence[Point] = ()
    """The values of each step, where `curve` is of windows of them."""
    worst: Sequence[Point] = ()
    """Values of the worst rank, scaled as if all were like it; empty where no rank can be named."""
    worst_rank: int | None = None
    """That rank; None where it is another one from step to step."""
    outside: Sequence[Stretch] = ()
    """The steps in which it is not healthy; of a window all."""

    @property
    def band(self) -> tuple[float, float] | None:
        """The healthy values; None where all are."""
        bounded = self.range.low > 0 or math.isfinite(self.range.high)
        return (self.range.low, self.range.high) if bounded else None

    @property
    def last(self) -> float:
        """The newest value; NaN where there is none."""
        return self.curve[-1][1] if self.curve else math.nan

    @property
    def unit(self) -> str:
        """The unit of the values, in words."""
        noun = self.row.unit.strip("{}")
        plural = {"1": "", "entry": "entries"}.get(noun, f"{noun}s")
        per = "" if self.range.per is Per.CLUSTER else f"per {self.range.per}"
        return f"{plural} {per}".strip()

    @property
    def healthy_text(self) -> str:
        """The range, in words."""
        if self.band is None:
            return "any value"
        low, high = self.range.low, self.range.high
        if math.isinf(high):
            return f"at least {grouped_number(low)}"
        if low == high:
            return f"exactly {grouped_number(low)}"
        return f"at most {grouped_number(high)}" if low <= 0 else f"{grouped_number(low)} to {grouped_number(high)}"


def judged_curve(history: History, row: Metric, bounds: HealthyRange, rank: int | None = None) -> JudgedCurve:
    """Return the curve of a headline metric.

    Args:
        history: The run.
        row: The metric.
        bounds: Its range in this run.
        rank: The rank to show beside the cluster, where one is the worst.
    """
    track, key = history.cluster, row.wandb_key
    mean_picks = mean([value for _, value in finite(track.points(rows.PICKS.wandb_key))])
    by_step = _scaled(track.points(key), scale_of(key, bounds, mean_picks, history.world_size))
    width = min(WINDOW, len(by_step)) if bounds.statistic is Statistic.MEAN else 1
    curve = _averaged(by_step, width)
    begins = {end: by_step[index][0] for index, (end, _) in enumerate(curve)}
    return JudgedCurve(
        row=row,
        range=bounds,
        curve=curve,
        by_step=by_step if width > 1 else (),
        worst=_averaged(_worst(history, row, bounds, mean_picks, rank), width),
        worst_rank=rank if rank in history.ranks else None,
        outside=merged((begins[first], last) for first, last in stretches(curve, bounds.low, bounds.high)),
    )


def _worst(history: History, row: Metric, bounds: HealthyRange, picks: float, rank: int | None) -> list[Point]:
    """Return the curve of a rank, or of the maximum over the ranks, as if all ranks were like it."""
    if not bounds.worst or row.reduction is Reduction.MAX:
        return []
    of_one = history.world_size if row.reduction is Reduction.SUM else 1
    scale = scale_of(row.wandb_key, bounds, picks, history.world_size)
    if rank is not None and rank in history.ranks:
        return _scaled(history.ranks[rank].points(row.wandb_key), scale * of_one)
    if row.with_max:
        key = row.wandb_key + MAX_SUFFIX
        return _scaled(history.cluster.points(key), scale_of(key, bounds, picks, history.world_size))
    return []


def _scaled(points: Iterable[tuple[int, float]], scale: float) -> list[Point]:
    return finite((float(step), value * scale) for step, value in points)


def _averaged(points: Sequence[Point], width: int) -> list[Point]:
    """Return the mean of each window of points, at its last step."""
    means = window_means([value for _, value in points], width)
    return [(step, value) for (step, _), value in zip(points[max(0, width - 1) :], means, strict=True)]
