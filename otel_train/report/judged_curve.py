"""A headline metric over a run as its range judges it: the curve in the range's unit, and where it is outside. Pure.

A mean is judged over a window of log steps, as `examine` does to see since when a run is out of range: single
steps of counts in whole picks jump too much to be judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from otel_train.catalogue import MAX_SUFFIX, HealthyRange, Metric, Per, Reduction, Statistic, rows
from otel_train.diagnose.judgement import WINDOW, scale_of
from otel_train.number_text import grouped_number
from otel_train.read.curve_points import Points
from otel_train.read.history import History, mean
from otel_train.report.curves import Stretch, finite, merged, stretches


def _none() -> Points:
    return Points((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCurve:
    """A headline metric over a run."""

    row: Metric
    range: HealthyRange
    curve: Points
    """The judged values."""
    by_step: Points = field(default_factory=_none)
    """The values of each step, where `curve` is of windows of them."""
    worst: Points = field(default_factory=_none)
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
    mean_picks = mean(finite(track.curve(rows.PICKS.wandb_key)).values)
    by_step = _scaled(track.curve(key), scale_of(key, bounds, mean_picks, history.world_size))
    width = min(WINDOW, len(by_step)) if bounds.statistic is Statistic.MEAN else 1
    curve = by_step.averaged(width)
    # A window is named after its last step.
    outside = [
        (float(by_step.steps[first]), float(curve.steps[last]))
        for first, last in stretches(curve, bounds.low, bounds.high)
    ]
    return JudgedCurve(
        row=row,
        range=bounds,
        curve=curve,
        by_step=by_step if width > 1 else _none(),
        worst=_worst(history, row, bounds, mean_picks, rank).averaged(width),
        worst_rank=rank if rank in history.ranks else None,
        outside=merged(outside),
    )


def _worst(history: History, row: Metric, bounds: HealthyRange, picks: float, rank: int | None) -> Points:
    """Return the curve of a rank, or of the maximum over the ranks, as if all ranks were like it."""
    if not bounds.worst or row.reduction is Reduction.MAX:
        return _none()
    of_one = history.world_size if row.reduction is Reduction.SUM else 1
    scale = scale_of(row.wandb_key, bounds, picks, history.world_size)
    if rank is not None and rank in history.ranks:
        return _scaled(history.ranks[rank].curve(row.wandb_key), scale * of_one)
    if row.with_max:
        key = row.wandb_key + MAX_SUFFIX
        return _scaled(history.cluster.curve(key), scale_of(key, bounds, picks, history.world_size))
    return _none()


def _scaled(points: Points, scale: float) -> Points:
    return finite(points.scaled(scale))
