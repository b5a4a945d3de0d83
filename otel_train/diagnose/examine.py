"""Examine a run: each headline metric against its range, the mix, the ranks and the pipeline, worst first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from otel_train.catalogue import HEADLINE_KEYS, HealthyRange, Metric, headline_row, healthy_range, rows
from otel_train.delivery import read_status
from otel_train.diagnose.causes import explain
from otel_train.diagnose.drift import find_drift
from otel_train.diagnose.finding import Finding, Severity
from otel_train.diagnose.judgement import Judgement, judge_key, scale_of
from otel_train.diagnose.ranks import find_ranks, find_stragglers
from otel_train.read.history import History, Track
from otel_train.read.rings import RingJob

Ranges = Callable[[str], HealthyRange]
"""Gives the range of a headline key."""

CRITICAL = (rows.PICKS, rows.MIX_DIVERGENCE, rows.FALSE_EVICTIONS)
"""Out of their range, the model learns the wrong thing; the alerts of these are critical too."""
WINDOW = 20
"""Log steps over which a mean is taken to see since when it is out of its range."""
_ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.OK)


def examine(
    history: History, *, job: RingJob | None = None, ranges: Ranges = healthy_range, now_ns: int | None = None
) -> list[Finding]:
    """Return what there is to say of a run, worst first.

    Args:
        history: The run.
        job: Its rings, where they are here: only they tell what the ranks do at this moment.
        ranges: Gives the range of a headline key.
        now_ns: The present time, nanoseconds since the epoch.
    """
    findings: list[Finding] = []
    if job is not None:
        now_ns = time.time_ns() if now_ns is None else now_ns
        findings += find_ranks(job.states(), history, now_ns)
    findings += find_stragglers(history)
    findings += [find_metric(history, key, ranges(key)) for key in HEADLINE_KEYS]
    findings.append(find_drift(history))
    findings += find_starved(history)
    findings += find_pipeline(history, job)
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def find_metric(history: History, key: str, wanted: HealthyRange) -> Finding:
    """Return a headline metric's judgement, as a smoke run's verdict has it, and what the run tells of its cause."""
    row, track = headline_row(key), history.cluster
    values = [value for _, value in track.finite(key)]
    if not values:
        return Finding(check=key, severity=Severity.UNKNOWN, summary="the source has no such values")
    picks = [value for _, value in track.finite(rows.PICKS.wandb_key)]
    scale = scale_of(key, wanted, math.fsum(picks) / max(1, len(picks)), history.world_size)
    judgement = judge_key(key, values, scale, wanted)
    if math.isnan(judgement.judged):
        return Finding(check=key, severity=Severity.UNKNOWN, summary=f"it can't be compared with {wanted}")
    summary = f"{figure(judgement.judged)}{unit_of(wanted)}, healthy is {wanted}"
    if judgement.healthy:
        return Finding(check=key, severity=Severity.OK, summary=summary)
    since, until = stretch(list(track.finite(key)), scale, wanted)
    over = "" if until is None else f"; in its range again since step {until}"
    rank = worst_rank(history, row, low=judgement.judged < wanted.low)
    reason = explain(history, row, rank)
    return Finding(
        check=key,
        severity=Severity.CRITICAL if row in CRITICAL else Severity.WARNING,
        summary=summary + over,
        since_step=since,
        rank=rank,
        evidence=(f"of {len(values)} log steps: {_figures(judgement)}", *reason.evidence),
        cause=reason.cause,
        remedy=reason.remedy,
    )


def stretch(known: Sequence[tuple[int, float]], scale: float, wanted: HealthyRange) -> tuple[int | None, int | None]:
    """Return the first step of the newest stretch out of range, and the step at which it was over (None: it is not).

    A mean is taken over `WINDOW` log steps at a time, and a stretch that begins on the way does so in the middle of the
    first window that is out.
    """
    figures = [value * scale for _, value in known]
    width = 1
    if wanted.statistic == "mean":
        width = min(WINDOW, len(figures))
        figures = [math.fsum(figures[place : place + width]) / width for place in range(len(figures) - width + 1)]
    outside = [value not in wanted for value in figures]
    if not any(outside):
        return None, None
    end = len(outside) - outside[::-1].index(True)
    begin = end - 1
    while begin and outside[begin - 1]:
        begin -= 1
    until = None if end == len(outside) else known[end + width - 1][0]
    return known[begin + width // 2 if begin else 0][0], until


def worst_rank(history: History, row: Metric, *, low: bool) -> int | None:
    """Return the rank whose own values are the most out of range, None where no rank stands out."""
    means = {
        rank: math.fsum(values) / len(values)
        for rank, track in history.ranks.items()
        if (values := [value for _, value in track.finite(row.wandb_key)])
    }
    if len(means) > 1 and len(set(means.values())) > 1:
        return (min if low else max)(means, key=lambda rank: means[rank])
    return named_rank(history.cluster, row)


def named_rank(track: Track, row: Metric) -> int | None:
    """Return the rank that the maximum of a metric names most often, weighed by its value."""
    peak = row.wandb_key + ("_max" if row.with_max else "")
    weights: dict[int, float] = {}
    for value, rank in zip(track.column(peak), track.column(peak + "_rank"), strict=True):
        if not math.isnan(value) and not math.isnan(rank):
            weights[int(rank)] = weights.get(int(rank), 0.0) + value
    return max(weights, key=lambda rank: weights[rank]) if weights and max(weights.values()) > 0 else None


def find_starved(history: History) -> list[Finding]:
    """Return the readers that wait longer than their weights explain; nothing where there are none."""
    row = rows.STARVED_READERS
    known = list(history.cluster.finite(row.wandb_key))
    hungry = [(step, count) for step, count in known if count]
    if not hungry or known[-1][1] == 0:
        return []
    begin = next((step for (_, before), (step, _) in zip(known[-2::-1], known[:0:-1], strict=True) if not before), None)
    ranks = sorted(rank for rank, track in history.ranks.items() if track.last(row.wandb_key) > 0)
    return [
        Finding(
            check=row.wandb_key,
            severity=Severity.WARNING,
            summary=f"{known[-1][1]:.0f} readers wait longer than their weights explain",
            since_step=hungry[0][0] if begin is None else begin,
            rank=ranks[0] if ranks else None,
            chance=1e-6,
            evidence=(f"on ranks {', '.join(map(str, ranks))}",) if ranks else (),
            cause="the mixer does not use the weight that is configured for a slot",
            remedy=row.remedy,
        )
    ]


def find_pipeline(history: History, job: RingJob | None) -> list[Finding]:
    """Return what the way of the values itself has lost or holds up."""
    findings = []
    for row, count in (
        (rows.RECORDS_DROPPED, history.dropped),
        (rows.POINTS_REFUSED, history.refused),
        (rows.REDUCTIONS_ABANDONED, history.abandoned),
    ):
        if not math.isnan(count):
            severity = Severity.WARNING if count else Severity.OK
            remedy = row.remedy if count else ""
            findings.append(
                Finding(
                    check=row.name, severity=severity, summary=f"{count:.0f} {row.unit.strip('{}')}s", remedy=remedy
                )
            )
    findings += _find_dropped_values(history)
    findings += _find_delivery(job) if job is not None else []
    for path, why in job.damaged.items() if job is not None else ():
        findings.append(Finding(check="rings", severity=Severity.WARNING, summary=f"{path.name} can't be read: {why}"))
    return findings


def _find_dropped_values(history: History) -> list[Finding]:
    """Return the values that ranks have dropped, such as keys that came after the first step; nothing without any."""
    row = rows.VALUES_DROPPED
    dropped = [(step, value) for step, value in history.cluster.finite(row.wandb_key) if value > 0]
    if not dropped:
        return []
    count = math.fsum(value for _, value in dropped)
    ranks = [rank for rank, track in history.ranks.items() if any(v > 0 for _, v in track.finite(row.wandb_key))]
    return [
        Finding(
            check=row.wandb_key,
            severity=Severity.WARNING,
            summary=f"{count:.0f} values of scalars and sources were dropped, the last at step {dropped[-1][0]}",
            since_step=dropped[0][0],
            rank=min(ranks, default=None),
            cause="a key that the first step did not have, what is no number, or a source that raises",
            remedy=row.remedy,
        )
    ]


def _find_delivery(job: RingJob) -> list[Finding]:
    """Return whether a receiver takes what is recorded, where the job's sidecar has said so and something waits."""
    status = read_status(job.directory)
    if status is None or not any(state.unsent for state in job.states()):
        return []
    if not status.failing:
        return [Finding(check="delivery", severity=Severity.OK, summary=f"{status.address} takes what is sent")]
    summary = f"{status.address} does not take what is recorded: {status.cause}"
    return [
        Finding(
            check="delivery",
            severity=Severity.WARNING,
            summary=summary,
            evidence=(status.text,) if status.text else (),
            remedy=status.advice,
        )
    ]


def _figures(judgement: Judgement) -> str:
    return f"mean {figure(judgement.mean)}, largest {figure(judgement.max)}, last {figure(judgement.last)}"


def figure(value: float) -> str:
    """Return a number as people write it."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.3g}"


def unit_of(wanted: HealthyRange) -> str:
    """Return what a judged figure is per."""
    return "" if wanted.per == "cluster" else f" per {wanted.per}"


def exit_code(findings: Sequence[Finding]) -> int:
    """Return what a script learns: 0 when nothing is wrong, 1 when something is."""
    return int(any(finding.severity in (Severity.WARNING, Severity.CRITICAL) for finding in findings))
