"""Find the ranks that slow a job down: slower than the others more often than by chance."""

from __future__ import annotations

import math
from statistics import median

from otel_train.catalogue import Metric, rows
from otel_train.diagnose.finding import Finding, Severity
from otel_train.read.history import History

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
    values = {rank: dict(track.finite(row.wandb_key)) for rank, track in history.ranks.items()}
    common = sorted(set.intersection(*(set(own) for own in values.values())))[-RECENT:]
    if not common:
        return None
    slowest = [max(values, key=lambda rank: values[rank][step]) for step in common]
    worst = max(set(slowest), key=slowest.count)
    times = slowest.count(worst)
    chance = min(1.0, len(values) * binomial_tail(times, len(common), 1 / len(values)))
    others = [median(values[rank][step] for rank in values if rank != worst) for step in common]
    excess = median(values[worst][step] - other for step, other in zip(common, others, strict=True))
    durations = rows.STEP_DURATION.wandb_key
    usual = median(value for track in history.ranks.values() for value in track.finite_values(durations))
    if chance > UNLIKELY or excess < SLOWED * usual:
        return None
    verb = "waits longer for its data" if row is rows.DATA_WAIT else "takes longer for a step"
    own = median(values[worst][step] for step in common)
    return Finding(
        check=row.wandb_key,
        severity=Severity.WARNING,
        summary=f"rank {worst} {verb} than the others: {own:.3g} s, {excess:.3g} s more than their median",
        rank=worst,
        chance=chance,
        evidence=(f"it was the slowest in {times} of the last {len(common)} log steps",),
        cause="its loader or its storage is slow" if row is rows.DATA_WAIT else "its node or its device is slow",
        remedy="Give its loader more workers, or look at its storage."
        if row is rows.DATA_WAIT
        else "Compare its node with the others: clocks, other processes, a throttled device.",
    )


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
