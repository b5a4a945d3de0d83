"""What one look at a running job tells: figures and verdicts for a frame, from the values and the ranks. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_train.catalogue import (
    HEADLINE,
    HEADLINE_KEYS,
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Phase,
    healthy_range,
    rows,
)
from otel_train.diagnose.judgement import Judgement, judge
from otel_train.number_text import duration
from otel_train.read.history import History, Track
from otel_train.read.rings import RankState

RANK_KEYS = frozenset(row.wandb_key for row in (rows.STALENESS_MAX, rows.EVICTIONS, rows.DATA_WAIT, rows.STEP_DURATION))
"""What is shown of each rank's own values."""
RATE_STEPS = 32
"""Log steps that the step rate is taken over."""
STILL = 10.0
"""A job stands still when its last sign of life is so many steps' time ago, and so many seconds."""
BEHIND = 10
"""Steps by which a rank may be behind without a word: those of a slow node's neighbours differ by one."""
STANDS_STILL = "stands still"
BAD = ("died", "failed")
"""States of a rank that has not ended well, the worse first."""
OVER = ("ended", *BAD)
"""States in which nothing goes on."""
_WAITS = {_phase.name.lower() for _phase in (Phase.LEDGER, Phase.REDUCTION)}
"""Where a rank waits for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLine:
    """One headline metric."""

    key: str
    curve: tuple[float, ...]
    """Its values by log step, NaN where there is none."""
    last: float
    judged: float
    """The figure that its range is about."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLine:
    """One rank."""

    rank: int
    host: str
    step: int
    state: str
    """live, ended (its session was closed), failed (with an exception), died (it was not closed)."""
    error: str
    """Name of the exception that it ended with, without its module."""
    phase: str
    seen: float
    """Seconds since its last sign of life."""
    staleness: float
    """The largest age of its readers, newest."""
    evictions: float
    """Of the log steps that are looked at, added up."""
    wait: float
    """Seconds that a step waited for its batch, newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The rank to look at first."""

    rank: int
    why: str
    """In 15 characters or so, beside the rank's phase."""
    wrong: bool
    """Whether something is wrong with it, or it is only the last of healthy ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All that a frame shows."""

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
    log_steps: int
    """Over how many log steps the verdicts are."""
    metrics: tuple[MetricLine, ...]
    shares: tuple[ShareLine, ...]
    ranks: tuple[RankLine, ...]
    worst: Worst | None
    unsent: int
    notices: tuple[str, ...]
    """What else must be said, a line each."""


def look(
    history: History,
    states: Sequence[RankState],
    now_ns: int,
    *,
    health: Callable[[str], HealthyRange] = healthy_range,
    notices: Sequence[str] = (),
) -> Look:
    """Sum up what is known now.

    Args:
        history: The values, as far back as the verdicts are to reach.
        states: The ranks that are seen.
        now_ns: The time, nanoseconds since the epoch.
        health: The healthy range of a headline key.
        notices: What else the frame must say.
    """
    cluster = history.cluster
    source = (
        cluster if cluster.steps else max(history.ranks.values(), key=lambda track: len(track.steps), default=cluster)
    )
    ranks = tuple(_rank(state, history.ranks.get(state.identity.rank), now_ns) for state in states)
    metrics = _metrics(cluster, history.world_size, health)
    step_seconds = source.last(rows.STEP_DURATION.wandb_key)
    state, alarming = _state(ranks, step_seconds)
    seen = min((rank.seen for rank in ranks), default=math.nan)
    attempt = states[0].identity.attempt if states else 0
    over = state in OVER
    said = list(notices)
    if not cluster.steps and states:
        said.append("no values of the cluster yet: they are in rank 0's ring, on its node")
    if history.dropped > 0:
        said.append(f"{history.dropped:.0f} records were overwritten before they were sent")
    if history.refused > 0:
        said.append(f"{history.refused:.0f} points were refused by the receiver; the sidecar's log says why")
    if history.abandoned > 0:
        said.append(f"{history.abandoned:.0f} reductions were abandoned")
    return Look(
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
        log_steps=len(cluster.steps),
        metrics=metrics,
        shares=tuple(
            ShareLine(
                modality=modality,
                share=cluster.last(f"{rows.MODALITY_SHARE.wandb_key}/{modality}"),
                target=cluster.last(f"{rows.MODALITY_TARGET.wandb_key}/{modality}"),
            )
            for modality in history.modalities
        ),
        ranks=ranks,
        worst=_worst(ranks, metrics, state),
        unsent=sum(each.unsent for each in states),
        notices=tuple(said),
    )


def _rank(state: RankState, track: Track | None, now_ns: int) -> RankLine:
    own = track or Track()
    evictions = [value for _, value in own.known(rows.EVICTIONS.wandb_key)]
    phase = "?" if state.phase is None else state.phase.name.lower()
    return RankLine(
        rank=state.identity.rank,
        host=state.identity.host,
        step=state.step,
        state=_state_of(state),
        error=state.error.rpartition(".")[2],
        phase=phase,
        seen=max(0.0, (now_ns - max(state.step_time_ns, state.phase_time_ns)) / 1e9),
        staleness=own.last(rows.STALENESS_MAX.wandb_key),
        evictions=math.fsum(evictions) if evictions else math.nan,
        wait=own.last(rows.DATA_WAIT.wandb_key),
    )


def _state_of(state: RankState) -> str:
    if state.closed:
        return "failed" if state.error else "ended"
    return "live" if state.lives else "died"


def _state(ranks: Sequence[RankLine], step_seconds: float) -> tuple[str, bool]:
    """Return what the job does, and whether that is bad."""
    states = {rank.state for rank in ranks}
    bad = next((state for state in BAD if state in states), None)
    if "live" not in states:
        return (bad, True) if bad else ("ended", False)
    patience = STILL * max(1.0, 0.0 if math.isnan(step_seconds) else step_seconds)
    if min(rank.seen for rank in ranks if rank.state == "live") > patience:
        return STANDS_STILL, True
    return (f"live, a rank {bad}", True) if bad else ("live", False)


def _rate(track: Track) -> float:
    """Return steps in a second over the newest log steps."""
    steps, times = track.steps[-RATE_STEPS:], track.times_ns[-RATE_STEPS:]
    if len(steps) < 2 or times[-1] <= times[0]:
        return math.nan
    return (steps[-1] - steps[0]) / ((times[-1] - times[0]) / 1e9)


def _metrics(cluster: Track, world_size: int, health: Callable[[str], HealthyRange]) -> tuple[MetricLine, ...]:
    wanted = [*HEADLINE_KEYS, *(key + RANK_SUFFIX for key in HEADLINE_KEYS if key + RANK_SUFFIX in cluster.values)]
    columns = {key: cluster.values[key] for key in wanted if key in cluster.values}
    table: list[Mapping[str, float]] = [
        {key: column[place] for key, column in columns.items() if not math.isnan(column[place])}
        for place in range(len(cluster.steps))
    ]
    by_key = {each.key: each for each in judge(table, max(1, world_size), health)}
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


def _worst(ranks: Sequence[RankLine], metrics: Sequence[MetricLine], state: str) -> Worst | None:
    """Name the rank to look at first: a dead one, one that holds the others up, the one that a metric names."""
    if not ranks:
        return None
    lost = [rank for rank in ranks if rank.state in BAD]
    if lost:
        first = max(lost, key=lambda rank: rank.seen)
        return Worst(rank=first.rank, why=first.error or f"in {first.phase} at {first.step}", wrong=True)
    last = min(ranks, key=lambda rank: (rank.step, rank.phase in _WAITS, -rank.seen))
    if state == STANDS_STILL:
        return Worst(rank=last.rank, why=f"for {duration(last.seen)}", wrong=True)
    behind = max(rank.step for rank in ranks) - last.step
    if behind > BEHIND:
        return Worst(rank=last.rank, why=f"{behind} behind", wrong=True)
    seen = {rank.rank for rank in ranks}
    for line in metrics:
        if line.healthy is False and line.worst_rank in seen:
            assert line.worst_rank is not None, "None is no rank"
            return Worst(rank=line.worst_rank, why=line.key.rpartition("/")[2], wrong=True)
    stale = [rank for rank in ranks if not math.isnan(rank.staleness)]
    if not stale:
        return None
    oldest = max(stale, key=lambda rank: (rank.staleness, -rank.rank))
    return Worst(rank=oldest.rank, why="staleness", wrong=False)
