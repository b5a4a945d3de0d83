"""Find the ranks that slow a job down: slower than the others more often than by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from otel_train.catalogue import Metric, rows
from otel_train.diagnose.finding import Finding, Severity
from otel_train.diagnose.ranks import all_durations
from otel_train.read.curve_points import median_of
from otel_train.read.history import History, Track

RECENT = 200
"""Newest log steps that are compared."""
UNLIKELY = 1e-3
"""The chance below which a rank counts as slower than the others."""
SLOWED = 0.1
"""Part of a step's time by which it must be slower to be a finding."""


def find_stragglers(history: History) -> list[Finding]:
    """Return the ranks that are slower than the others: by their own step time, or by their wait for data.

    Where ranks wait for each other, all have the same step time, and the wait for data tells who is waited for. By
    chance each of n ranks would be the slowest in one of n steps.
    """
    return [
        finding for row in (rows.DATA_WAIT, rows.STEP_DURATION) if (finding := _straggler(history, row)) is not None
    ]


def _straggler(history: History, row: Metric) -> Finding | None:
    if len(history.ranks) < 2:
        return None
    ranks, by_step = list(history.ranks), newest_common([*history.ranks.values()], row.wandb_key)
    if not by_step:
        return None
    slowest = [ranks[values.index(max(values))] for values in by_step]
    worst = max(set(slowest), key=slowest.count)
    times = slowest.count(worst)
    chance = min(1.0, len(ranks) * binomial_tail(times, len(by_step), 1 / len(ranks)))
    if chance > UNLIKELY:
        return None
    at = ranks.index(worst)
    others = [median([*values[:at], *values[at + 1 :]]) for values in by_step]
    excess = median(values[at] - other for values, other in zip(by_step, others, strict=True))
    durations = all_durations(history)
    if excess < SLOWED * (median_of(durations) if durations else 0.0):
        return None
    verb = "waits longer for its data" if row is rows.DATA_WAIT else "takes longer for a step"
    own = median(values[at] for values in by_step)
    return Finding(
        check=row.wandb_key,
        severity=Severity.WARNING,
        summary=f"rank {worst} {verb} than the others: {own:.3g} s, {excess:.3g} s more than their median",
        rank=worst,
        chance=chance,
        evidence=(f"it was the slowest in {times} of the last {len(by_step)} log steps",),
        cause="its loader or its storage is slow" if row is rows.DATA_WAIT else "its node or its device is slow",
        remedy="Give its loader more workers, or look at its storage."
        if row is rows.DATA_WAIT
        else "Compare its node with the others: clocks, other processes, a throttled device.",
    )


def newest_common(tracks: Sequence[Track], key: str) -> list[tuple[float, ...]]:
    """Return the values of a key at the newest `RECENT` steps at which all ranks have one, a row for each step.

    Args:
        tracks: Those of the ranks, two at least.
        key: The wandb key.
    """
    curves = [track.finite_curve(key)[-RECENT:] for track in tracks]
    if any(curve.steps != curves[0].steps for curve in curves):
        curves = [track.finite_curve(key) for track in tracks]
        common = set.intersection(*(set(curve.steps) for curve in curves))
        kept = sorted(common)[-RECENT:]
        by_step = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
        return [tuple(values[step] for values in by_step) for step in kept]
    return list(zip(*(curve.values for curve in curves), strict=True))


def binomial_tail(times: int, of: int, chance: float) -> float:
    """Return the probability of at least so many successes."""
    return math.fsum(
        math.exp(
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * math.log(chance)
            + (of - k) * math.log1p(-chance)
        )
        for k in range(times, of + 1)
    )
