"""Examine a run: each headline metric against its range, the mix, the ranks and the pipeline, worst first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from otel_train.catalogue import (
    HEADLINE_KEYS,
    JUDGED_KEYS,
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Metric,
    Per,
    Ranges,
    Statistic,
    headline_row,
    healthy_range,
    rows,
)
from otel_train.delivery import read_status
from otel_train.diagnose.alike_ranks import find_alike
from otel_train.diagnose.causes import explain
from otel_train.diagnose.drift import find_drift
from otel_train.diagnose.finding import WORST_FIRST, WRONG, Finding, Severity
from otel_train.diagnose.fitted_ranges import fitted_ranges
from otel_train.diagnose.judgement import WINDOW, Judgement, judge_key, scale_of
from otel_train.diagnose.ranks import find_end, find_ranks
from otel_train.diagnose.starved import find_starved
from otel_train.diagnose.stragglers import find_stragglers
from otel_train.host_clock import COSTS, ClockOffset
from otel_train.how_far import tell
from otel_train.number_text import rounded_number
from otel_train.printable import printable
from otel_train.read.column_values import rank_weights
from otel_train.read.curve_points import Points, edge, span_of, window_means
from otel_train.read.history import History, Track
from otel_train.read.rank_ring import RankStatus
from otel_train.read.rings import RingJob
from otel_train.refusals import REMEDIES, reasons_text
from otel_train.ring import is_served

CRITICAL = (rows.PICKS, rows.MIX_DIVERGENCE, rows.FALSE_EVICTIONS)
"""Metrics that make the model learn the wrong thing where they are out of range; their alerts are critical too."""
_OF_PICKS = (rows.STALENESS_MEAN, rows.STALENESS_MAX, rows.SWITCH_RATE, rows.MIX_DIVERGENCE)
"""Metrics that say nothing where nothing was picked."""


def examine(
    history: History, *, job: RingJob | None = None, ranges: Ranges = healthy_range, now_ns: int | None = None
) -> list[Finding]:
    """Return the findings of a run, the worst first.

    Args:
        history: The run.
        job: Its rings, where they are here: no other source has the ranks' present state.
        ranges: Gives the range of a headline key; the catalogue's are fitted to the run.
        now_ns: The present time, nanoseconds since the epoch.
    """
    findings: list[Finding] = []
    ranges = fitted_ranges(history, ranges)
    if job is not None:
        now_ns = time.time_ns() if now_ns is None else now_ns
        findings += find_ranks(job.states(), history, now_ns)
        findings += _find_rivals(job)
    else:
        findings += find_end(history)
    findings += find_stragglers(history)
    for number, key in enumerate(JUDGED_KEYS):
        tell("metrics judged", number, len(JUDGED_KEYS))
        if _is_expected(history, key):
            findings.append(find_metric(history, key, ranges(key)))
    tell("metrics judged", 1, 1)
    findings.append(find_drift(history))
    findings += find_alike(history)
    findings += find_starved(history)
    findings += find_pipeline(history, job)
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.severity))


def _is_expected(history: History, key: str) -> bool:
    """Tell whether a run must have a judged key: a headline one, or one that it has measured."""
    return key in HEADLINE_KEYS or (key in history.cluster.values and bool(history.cluster.finite_values(key)))


def find_metric(history: History, key: str, bounds: HealthyRange) -> Finding:
    """Return a headline metric's judgement, the same as in a smoke run's verdict, and the cause that the run shows."""
    row, track = headline_row(key), history.cluster
    points = track.finite_curve(key)
    values = points.values
    if not values:
        return Finding(check=key, severity=Severity.UNKNOWN, summary="the source has no such values")
    picks = track.finite_mean(rows.PICKS.wandb_key)
    scale = scale_of(key, bounds, picks, history.world_size)
    judgement = judge_key(key, values, scale, bounds)
    if math.isnan(judgement.judged):
        return Finding(check=key, severity=Severity.UNKNOWN, summary=f"it can't be compared with {bounds}")
    if row in _OF_PICKS and not picks:
        return Finding(check=key, severity=Severity.UNKNOWN, summary="no pick was counted")
    summary = f"{rounded_number(judgement.judged)}{_unit(bounds)}, healthy is {bounds}"
    if judgement.healthy:
        return Finding(check=key, severity=Severity.OK, summary=summary)
    since, until = newest_stretch(points, scale, bounds)
    over = "" if until is None else f"; in its range again since step {until}"
    rank = worst_rank(history, row, low=judgement.judged < bounds.low)
    reason = explain(history, row, rank)
    return Finding(
        check=key,
        severity=Severity.CRITICAL if row in CRITICAL else Severity.WARNING,
        summary=summary + over,
        since_step=since,
        rank=rank,
        evidence=(f"of {len(values)} log steps: {_statistics(judgement)}", *reason.evidence),
        cause=reason.cause,
        remedy=reason.remedy,
    )


def newest_stretch(points: Points, scale: float, bounds: HealthyRange) -> tuple[int | None, int | None]:
    """Return the first step of the newest stretch out of range, and the step at which it was over (None: it is not).

    A mean is taken over `WINDOW` log steps at a time, and a stretch that begins on the way does so in the middle of the
    first window that is out.
    """
    width = min(WINDOW, len(points)) if bounds.statistic is Statistic.MEAN else 1
    judged = window_means(points.scaled(scale).values, width)
    end = 1 + edge(judged, bounds.low, bounds.high, len(judged) - 1, -1, inside=False)
    if not end:
        return None, None
    begin = 1 + edge(judged, bounds.low, bounds.high, end - 2, -1, inside=True)
    until = None if end == len(judged) else round(points.steps[end + width - 1])
    return round(points.steps[begin + width // 2 if begin else 0]), until


def worst_rank(history: History, row: Metric, *, low: bool) -> int | None:
    """Return the rank whose own values are the most out of range, None where no rank stands out."""
    means: dict[int, float] = {}
    if len(history.ranks) > 1:
        sums = {rank: track.finite_sum(row.wandb_key) for rank, track in history.ranks.items()}
        means = {rank: total / number for rank, (total, number) in sums.items() if number}
    if len(means) > 1 and len(set(means.values())) > 1:
        return (min if low else max)(means, key=lambda rank: means[rank])
    return named_rank(history.cluster, row)


def named_rank(track: Track, row: Metric) -> int | None:
    """Return the rank that the maximum of a metric names most often, weighed by its value."""
    peak = row.wandb_key + (MAX_SUFFIX if row.with_max else "")
    values, ranks = track.column(peak), track.column(peak + RANK_SUFFIX)
    span = span_of(ranks)
    if span is not None and span[0] == span[1]:
        total = sum(values)
        if math.isnan(total):
            total = sum(value for value in values if not math.isnan(value))
        return int(ranks[0]) if total > 0 else None
    weights = rank_weights(values, ranks)
    return max(weights, key=lambda rank: weights[rank]) if weights and max(weights.values()) > 0 else None


def find_pipeline(history: History, job: RingJob | None) -> list[Finding]:
    """Return the losses of the pipeline itself, and whether a receiver holds it up."""
    findings = []
    for row, count in (
        (rows.RECORDS_DROPPED, history.dropped),
        (rows.POINTS_REFUSED, history.refused),
        (rows.REDUCTIONS_ABANDONED, history.abandoned),
    ):
        if not math.isnan(count):
            severity = Severity.WARNING if count else Severity.OK
            findings.append(
                Finding(
                    check=row.name,
                    severity=severity,
                    summary=f"{count:.0f} {row.unit.strip('{}')}s",
                    evidence=_why_refused(history, job) if count and row is rows.POINTS_REFUSED else (),
                    remedy=_remedy(row, history) if count else "",
                )
            )
    findings += _find_dropped_values(history)
    findings += _find_clocks(history, job)
    findings += _find_delivery(job) if job is not None else []
    for path, why in job.damaged.items() if job is not None else ():
        findings.append(Finding(check="rings", severity=Severity.WARNING, summary=f"{path.name} can't be read: {why}"))
    return findings


def _why_refused(history: History, job: RingJob | None) -> tuple[str, ...]:
    """Return the reasons, and the receiver's last words about it where the job's sidecar has noted them."""
    status = read_status(job.directory) if job is not None else None
    return tuple(filter(None, (reasons_text(history.refusals), status.refusal if status is not None else "")))


def _remedy(row: Metric, history: History) -> str:
    most = max(history.refusals, key=lambda reason: history.refusals[reason], default="")
    return REMEDIES.get(most, row.remedy) if row is rows.POINTS_REFUSED else row.remedy


def _find_clocks(history: History, job: RingJob | None) -> list[Finding]:
    """Return the clocks that are wrong; nothing without any."""
    row, status = rows.CLOCK_OFFSET, read_status(job.directory) if job is not None else None
    noted = status.clock if status is not None else ""
    if not history.wrong_clocks and not noted:
        return []
    worst = sorted(history.wrong_clocks.items(), key=lambda item: -abs(item[1]))
    texts = [f"{name} is {ClockOffset(seconds, 0.0)}" for name, seconds in worst]
    return [
        Finding(
            check=row.name,
            severity=Severity.WARNING,
            summary=f"the clock of {texts[0]}" if texts else noted.partition(". ")[0],
            evidence=(*texts[1:4], *([noted] if noted else [])),
            cause=COSTS,
            remedy=row.remedy,
        )
    ]


def _find_dropped_values(history: History) -> list[Finding]:
    """Return the values that ranks have dropped, such as those of keys beyond the bound; nothing without any."""
    row = rows.VALUES_DROPPED
    curve = history.cluster.finite_curve(row.wandb_key)
    if not any(curve.values):
        return []
    dropped = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if value > 0]
    if not dropped:
        return []
    count = math.fsum(value for _, value in dropped)
    ranks = [rank for rank, track in history.ranks.items() if any(v > 0 for _, v in track.finite(row.wandb_key))]
    return [
        Finding(
            check=row.wandb_key,
            severity=Severity.WARNING,
            summary=f"{count:.0f} values of scalars and sources were dropped, the last at step {round(dropped[-1][0])}",
            since_step=round(dropped[0][0]),
            rank=min(ranks, default=None),
            cause="a value that is not a number, a key that is reserved or one too many, or a source that raises",
            remedy=row.remedy,
        )
    ]


def _find_rivals(job: RingJob) -> list[Finding]:
    """Return that another job on this machine writes the same run, where one does."""
    rivals = job.rivals()
    if not rivals:
        return []
    return [
        Finding(
            check="run",
            severity=Severity.WARNING,
            summary=f"another job writes run {printable(job.history.run_id)!r} too",
            evidence=tuple(
                f"rank {state.identity.rank} of attempt {state.identity.attempt}, process {state.pid}, goes on at step "
                f"{state.step}"
                for state in rivals[:3]
            ),
            cause="Both have one run id: where they are sent to their rows are mixed, and only the newer one is judged",
            remedy="Give each job a run id of its own, by OTEL_TRAIN_RUN_ID or init(run_id=)",
        )
    ]


def _find_delivery(job: RingJob) -> list[Finding]:
    """Return whether a receiver takes the records, where the job's sidecar has noted it and some wait.

    Where the ranks and the sidecar are gone nobody sends the rest by itself.
    """
    states = job.states()
    if not any(state.unsent for state in states):
        return []
    status = read_status(job.directory)
    ended = all(state.status is not RankStatus.LIVE for state in states)
    if ended and job.history.facts.get("telemetry.delivers", True) and not is_served(job.directory):
        unsent = sum(state.unsent for state in states)
        return [
            Finding(
                check="delivery",
                severity=Severity.WARNING,
                summary=f"{unsent} records are not delivered, and no sidecar is there any more",
                evidence=(str(status),) if status is not None and status.failing else (),
                remedy=f"`otel-train send {job.directory}` sends them, in an environment that names the receiver",
            )
        ]
    if status is None:
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


def _statistics(judgement: Judgement) -> str:
    average, largest, last = map(rounded_number, (judgement.mean, judgement.max, judgement.last))
    return f"mean {average}, largest {largest}, last {last}"


def _unit(bounds: HealthyRange) -> str:
    return "" if bounds.per is Per.CLUSTER else f" per {bounds.per}"


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the exit code of a command: 0 when nothing is wrong, 1 when something is."""
    return int(any(finding.severity in WRONG for finding in findings))
