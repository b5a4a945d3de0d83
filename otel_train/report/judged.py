"""What a chart shows of a headline metric: the figure that its range judges, over the steps, in the range's unit. Pure.

A mean is judged over a window of log steps, as `examine` does to see since when a run is out of range: what comes in
whole picks jumps from step to step and means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_train.catalogue import MAX_SUFFIX, HealthyRange, Metric, Per, Reduction, Statistic, rows
from otel_train.diagnose.examine import WINDOW
from otel_train.diagnose.judgement import scale_of
from otel_train.read.history import History
from otel_train.report.curve import Point, Stretch, figure, finite, merged, stretches, window_means


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A headline metric over a run."""

    row: Metric
    range: HealthyRange
    curve: Sequence[Point]
    """What is judged."""
    each: Sequence[Point] = ()
    """The values of each step, where `curve` is of windows of them."""
    worst: Sequence[Point] = ()
    """The rank that is worst, as if all were like it; empty where no rank can be told."""
    worst_rank: int | None = None
    """Which it is; None where it is another one from step to step."""
    outside: Sequence[Stretch] = ()
    """The steps in which it is not healthy: a window's all."""

    @property
    def band(self) -> tuple[float, float] | None:
        """The healthy values; None where all are."""
        bounded = self.range.low > 0 or math.isfinite(self.range.high)
        return (self.range.low, self.range.high) if bounded else None

    @property
    def last(self) -> float:
        """The newest figure; NaN where there is none."""
        return self.curve[-1][1] if self.curve else math.nan

    @property
    def unit(self) -> str:
        """What the figures are in, for people."""
        noun = self.row.unit.strip("{}")
        plural = {"1": "", "entry": "entries"}.get(noun, f"{noun}s")
        per = "" if self.range.per is Per.CLUSTER else f"per {self.range.per}"
        return f"{plural} {per}".strip()

    @property
    def wish(self) -> str:
        """The range, for people."""
        if self.band is None:
            return "any value"
        low, high = self.range.low, self.range.high
        if math.isinf(high):
            return f"at least {figure(low)}"
        if low == high:
            return f"exactly {figure(low)}"
        return f"at most {figure(high)}" if low <= 0 else f"{figure(low)} to {figure(high)}"


def judged(history: History, row: Metric, wanted: HealthyRange, rank: int | None = None) -> Judged:
    """Return what a chart shows of a headline metric.

    Args:
        history: The run.
        row: The metric.
        wanted: Its range in this run.
        rank: The rank to show beside the cluster, where one is the worst.
    """
    track, key = history.cluster, row.wandb_key
    picks = [value for _, value in finite(track.known(rows.PICKS.wandb_key))]
    mean_picks = math.fsum(picks) / max(1, len(picks))
    each = _scaled(track.known(key), scale_of(key, wanted, mean_picks, history.world_size))
    width = min(WINDOW, len(each)) if wanted.statistic is Statistic.MEAN else 1
    curve = window_means(each, width)
    begins = {end: each[place][0] for place, (end, _) in enumerate(curve)}
    return Judged(
        row=row,
        range=wanted,
        curve=curve,
        each=each if width > 1 else (),
        worst=window_means(_worst(history, row, wanted, mean_picks, rank), width),
        worst_rank=rank if rank in history.ranks else None,
        outside=merged((begins[first], last) for first, last in stretches(curve, wanted.low, wanted.high)),
    )


def _worst(history: History, row: Metric, wanted: HealthyRange, picks: float, rank: int | None) -> list[Point]:
    """Return the curve of a rank, or of the maximum over the ranks, as if all ranks were like it."""
    if not wanted.worst or row.reduction is Reduction.MAX:
        return []
    of_one = history.world_size if row.reduction is Reduction.SUM else 1
    scale = scale_of(row.wandb_key, wanted, picks, history.world_size)
    if rank is not None and rank in history.ranks:
        return _scaled(history.ranks[rank].known(row.wandb_key), scale * of_one)
    if row.with_max:
        key = row.wandb_key + MAX_SUFFIX
        return _scaled(history.cluster.known(key), scale_of(key, wanted, picks, history.world_size))
    return []


def _scaled(known: Iterable[tuple[int, float]], scale: float) -> list[Point]:
    return finite((float(step), value * scale) for step, value in known)
