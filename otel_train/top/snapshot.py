"""A running job at one moment, as a frame shows it: values and verdicts, the mix, each rank. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isnan

from otel_train.catalogue import (
    HEADLINE,
    HEADLINE_KEYS,
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Phase,
    Ranges,
    healthy_range,
    rows,
)
from otel_train.diagnose.fitted_ranges import fitted_ranges
from otel_train.diagnose.judgement import Judgement, judge
from otel_train.number_text import duration
from otel_train.read.history import History, Track, share_key, target_key
from otel_train.read.rank_ring import RankState, RankStatus
from otel_train.refusals import reasons_text

RANK_KEYS = frozenset(row.wandb_key for row in (rows.STALENESS_MAX, rows.EVICTIONS, rows.DATA_WAIT, rows.STEP_DURATION))
"""Keys of each rank's own values that are shown."""
RATE_STEPS = 32
"""Log steps that the step rate is taken over."""
STILL = 10.0
"""Age of the last sign of life from which a job stands still: so many seconds, and so many times a step's."""
BEHIND = 10
"""Steps by which a rank may be behind before it is marked: those of a slow node's neighbours differ by one."""
STANDS_STILL = "stands still"
BAD = (RankStatus.DIED, RankStatus.FAILED)
"""States of a rank that has not ended well, the worse first."""
OVER = (RankStatus.ENDED, *BAD)
"""States of a rank that is no longer live."""
_CLOSE_APART = 0.002
"""Seconds between two rows up to which they may have been written one after the other."""
_WAITS = {_phase.name.lower() for _phase in (Phase.LEDGER, Phase.REDUCTION)}
"""Phases in which a rank waits for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLine:
    """One headline metric."""

    key: str
    curve: tuple[float, ...]
    """Its values by log step, NaN where there is none."""
    last: float
    judged: float
    """The value that its range is about."""
    range: HealthyRange
    healthy: bool | None
    """Whether it, and its maximum over the ranks, are in their range; None where it was never there."""
    worst_rank: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLine:
    """One modality's part of the picks."""

    modality: str
    share: float
    target: float
    loss: float = math.nan
    """Last value of the first scalar that the job gives by source; NaN where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLine:
    """One rank."""

    rank: int
    host: str
    step: int
    status: RankStatus
    error: str
    """Name of the exception that it ended with, without its module."""
    phase: str
    seen: float
    """Seconds since its last sign of life."""
    staleness: float
    """The largest age of its readers, newest."""
    evictions: float
    """Sum over the log steps of the snapshot."""
    wait: float
    """Seconds that a step waited for its batch, newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstRank:
    """The rank to look at first."""

    rank: int
    why: str
    """In 15 characters or so, beside the rank's phase."""
    wrong: bool
    """Whether something is wrong with it, or it is only the last of healthy ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The content of a frame."""

    run_id: str
    attempt: int
    world_size: int
    state: str
    """A few words: live, stands still, ended, failed, died, or that a rank failed or died."""
    alarming: bool
    """Whether that is bad."""
    age: float
    """Seconds since the attempt began, or, when it is over, since its last sign of life."""
    step: int
    rate: float
    """Steps in a second."""
    step_seconds: float
    wait_seconds: float
    metrics: tuple[MetricLine, ...]
    shares: tuple[ShareLine, ...]
    ranks: tuple[RankLine, ...]
    worst: WorstRank | None
    unsent: int
    notices: tuple[str, ...]
    """Further messages, a line each."""


def take_snapshot(
    history: History,
    states: Sequence[RankState],
    now_ns: int,
    *,
    ranges: Ranges = healthy_range,
    notices: Sequence[str] = (),
) -> Snapshot:
    """Return the job's present state, summed up for a frame.

    Args:
        history: The values, as far back as the verdicts are to reach.
        states: The ranks whose rings are here.
        now_ns: The present time, nanoseconds since the epoch.
        ranges: Gives the healthy range of a headline key.
        notices: Further messages for the frame.
    """
    cluster = history.cluster
    source = (
        cluster if cluster.steps else max(history.ranks.values(), key=lambda track: len(track.steps), default=cluster)
    )
    ranks = tuple(_rank(state, history.ranks.get(state.identity.rank), now_ns) for state in states)
    metrics = _metrics(cluster, history.world_size, fitted_ranges(history, ranges))
    step_seconds = source.last(rows.STEP_DURATION.wandb_key)
    state, alarming = _state(ranks, step_seconds)
    seen = min((rank.seen for rank in ranks), default=math.nan)
    attempt = states[0].identity.attempt if states else 0
    over = state in OVER
    messages = list(notices)
    if not cluster.steps and states:
        messages.append("no values of the cluster yet: they are in rank 0's ring, on its node")
    if history.dropped > 0:
        messages.append(f"{history.dropped:.0f} records were overwritten before they were sent")
    if history.refused > 0:
        reasons = reasons_text(history.refusals)
        why = f" ({reasons})" if reasons else ""
        messages.append(
            f"{history.refused:.0f} points were refused by the receiver{why}; `otel-train doctor` says more"
        )
    if history.abandoned > 0:
        messages.append(f"{history.abandoned:.0f} reductions were abandoned")
    whole = next(iter(history.by_source()), "")
    return Snapshot(
        run_id=history.run_id,
        attempt=attempt,
        world_size=history.world_size,
        state=state,
        alarming=alarming,
        age=seen if over else max(0.0, now_ns / 1e9 - attempt / 1e3),
        step=max((rank.step for rank in ranks), default=0),
        rate=0.0 if state == STANDS_STILL else _rate(source),
        step_seconds=step_seconds,
        wait_seconds=source.last(rows.DATA_WAIT.wandb_key),
        metrics=metrics,
        shares=tuple(
            ShareLine(
                modality=modality,
                share=cluster.last(share_key(modality)),
                target=cluster.last(target_key(modality)),
                loss=cluster.last(f"{whole}/{modality}"),
            )
            for modality in history.modalities
        ),
        ranks=ranks,
        worst=_worst(ranks, metrics, state),
        unsent=sum(rank.unsent for rank in states),
        notices=tuple(messages),
    )


def _rank(state: RankState, track: Track | None, now_ns: int) -> RankLine:
    own = track or Track()
    evictions = own.column(rows.EVICTIONS.wandb_key)
    total = math.fsum(evictions) if evictions else math.nan
    if isnan(total):  # of hundreds of ranks, each second: all are looked at only where one is none
        present = [value for value in evictions if not isnan(value)]
        total = math.fsum(present) if present else math.nan
    phase = "?" if state.phase is None else state.phase.name.lower()
    return RankLine(
        rank=state.identity.rank,
        host=state.identity.host,
        step=state.step,
        status=state.status,
        error=state.error.rpartition(".")[2],
        phase=phase,
        seen=max(0.0, (now_ns - max(state.step_time_ns, state.phase_time_ns)) / 1e9),
        staleness=own.last(rows.STALENESS_MAX.wandb_key),
        evictions=total,
        wait=own.last(rows.DATA_WAIT.wandb_key),
    )


def _state(ranks: Sequence[RankLine], step_seconds: float) -> tuple[str, bool]:
    """Return the job's state in a few words, and whether it is bad."""
    statuses = {rank.status for rank in ranks}
    bad = next((status for status in BAD if status in statuses), None)
    if RankStatus.LIVE not in statuses:
        return (bad, True) if bad else (RankStatus.ENDED, False)
    patience = STILL * max(1.0, 0.0 if math.isnan(step_seconds) else step_seconds)
    if min(rank.seen for rank in ranks if rank.status is RankStatus.LIVE) > patience:
        return STANDS_STILL, True
    return (f"live, a rank {bad}", True) if bad else (RankStatus.LIVE, False)


def _rate(track: Track) -> float:
    """Return steps in a second over the newest log steps.

    Rows that were written at a rank's close, and not when their steps ended, are a millisecond apart: how long such
    steps took is what the ranks have measured.
    """
    steps, times = track.steps[-RATE_STEPS:], track.times_ns[-RATE_STEPS:]
    if len(steps) < 2 or times[-1] <= times[0]:
        return math.nan
    durations = track.column(rows.STEP_DURATION.wandb_key)[-RATE_STEPS:]
    seconds = (times[-1] - times[0]) / 1e9
    for (before, after), (began, ended), took in zip(pairwise(steps), pairwise(times), durations[1:], strict=False):
        apart, measured = (ended - began) / 1e9, (after - before) * took
        if apart <= _CLOSE_APART < measured:
            seconds += measured - apart
    return (steps[-1] - steps[0]) / seconds


def _metrics(cluster: Track, world_size: int, ranges: Ranges) -> tuple[MetricLine, ...]:
    keys = [*HEADLINE_KEYS, *(key + RANK_SUFFIX for key in HEADLINE_KEYS)]
    columns = {key: cluster.values[key] for key in keys if key in cluster.values}
    table: list[Mapping[str, float]] = [
        {key: column[index] for key, column in columns.items() if not math.isnan(column[index])}
        for index in range(len(cluster.steps))
    ]
    by_key = {judgement.key: judgement for judgement in judge(table, max(1, world_size), ranges)}
    return tuple(_metric(cluster, by_key[row.wandb_key], by_key.get(row.wandb_key + MAX_SUFFIX)) for row in HEADLINE)


def _metric(cluster: Track, own: Judgement, peak: Judgement | None) -> MetricLine:
    shown = peak if peak is not None and own.healthy and not peak.healthy else own
    return MetricLine(
        key=own.key,
        curve=tuple(cluster.column(own.key)),
        last=cluster.last(own.key),
        judged=shown.judged,
        range=shown.range,
        healthy=shown.healthy if own.key in cluster.values else None,
        worst_rank=own.worst_rank,
    )


def _worst(ranks: Sequence[RankLine], metrics: Sequence[MetricLine], state: str) -> WorstRank | None:
    """Return the rank to look at first: a dead one, one that holds the others up, or one that a metric names."""
    if not ranks:
        return None
    lost = [rank for rank in ranks if rank.status in BAD]
    if lost:
        first = max(lost, key=lambda rank: rank.seen)
        return WorstRank(rank=first.rank, why=first.error or f"in {first.phase} at {first.step}", wrong=True)
    last = min(ranks, key=lambda rank: (rank.step, rank.phase in _WAITS, -rank.seen))
    if state == STANDS_STILL:
        return WorstRank(rank=last.rank, why=f"for {duration(last.seen)}", wrong=True)
    behind = max(rank.step for rank in ranks) - last.step
    if behind > BEHIND:
        return WorstRank(rank=last.rank, why=f"{behind} behind", wrong=True)
    seen = {rank.rank for rank in ranks}
    for line in metrics:
        if line.healthy is False and line.worst_rank in seen:
            assert line.worst_rank is not None, "it is one of the ranks"
            return WorstRank(rank=line.worst_rank, why=line.key.rpartition("/")[2], wrong=True)
    stale = [rank for rank in ranks if not math.isnan(rank.staleness)]
    if not stale:
        return None
    oldest = max(stale, key=lambda rank: (rank.staleness, -rank.rank))
    return WorstRank(rank=oldest.rank, why="staleness", wrong=False)
