"""Explain why a metric is out of its range, and advise what to do, with the run's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from otel_train.catalogue import Metric, rows
from otel_train.diagnose.capacity import advise
from otel_train.read.history import History, Track, mean, share_key, target_key

_WORST = 3
"""Ranks that are named at most."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Cause and remedy."""

    remedy: str
    cause: str = ""
    evidence: tuple[str, ...] = ()


def explain(history: History, row: Metric, rank: int | None) -> Reason:
    """Return cause, evidence and remedy of a headline metric that is out of its range; at least the catalogue's remedy.

    Args:
        history: The run.
        row: The metric.
        rank: The rank that is worst.
    """
    find = _REASONS.get(row.name)
    reason = find(history, rank) if find is not None else None
    evidence = (*_beside_others(history, row, rank), *(reason.evidence if reason else ()))
    if reason is None:
        return Reason(row.remedy, evidence=evidence)
    return Reason(reason.remedy, reason.cause, evidence)


def _beside_others(history: History, row: Metric, rank: int | None) -> tuple[str, ...]:
    """Return how the worst rank's own value compares with the others'."""
    if rank is None or rank not in history.ranks or len(history.ranks) < 2:
        return ()
    means = {number: track.finite_mean(row.wandb_key) for number, track in history.ranks.items()}
    own = means.pop(rank)
    others = sorted(means.values())
    return (f"rank {rank}: mean {own:.3g}, the other ranks' median {others[len(others) // 2]:.3g}",)


def _sum(track: Track, row: Metric) -> float:
    return track.finite_sum(row.wandb_key)[0]


def _capacity(history: History, _: int | None) -> Reason | None:
    plan = advise(history)
    if plan is None:
        return None
    advised = dict.fromkeys(advice.point for advice in plan.advice)
    evidence = [
        f"{plan.capacity} entries a rank, of which {plan.false_evictions:.0f} were thrown away and needed again; "
        + ", ".join(f"{point.capacity} would have saved {100 * point.saved:.0f} %" for point in advised)
    ]
    if plan.reach is not None:
        beyond = (
            "" if math.isnan(plan.beyond) else f"; {100 * plan.beyond:.0f} % of the fresh writes are not among them"
        )
        evidence.append(f"known up to {plan.reach} entries, where the ring of evicted keys ends{beyond}")
    return Reason(plan.remedy(), "a rank owns more live streams than its shard holds", (*evidence, *plan.caveats))


def _evictions(history: History, rank: int | None) -> Reason | None:
    reason = _capacity(history, rank)
    if reason is None and history.reuse:
        return Reason(
            "Nothing is lost so far: widen the range under [health], or raise ledger.capacity before it is.",
            "streams that have ended are evicted: none was needed again",
        )
    return reason


def _stale(history: History, _: int | None) -> Reason | None:
    idle = history.facts.get("ledger.max_idle_steps")
    ages = history.cluster.finite_values(rows.STALENESS_MAX.wandb_key)
    if not isinstance(idle, int) or not ages or max(ages) <= idle:
        return None
    return Reason(
        f"Set ledger.max_idle_steps from {idle} to at least {max(ages):.0f}.",
        f"readers wait for up to {max(ages):.0f} steps, entries are dropped after {idle}",
    )


def _divergence(history: History, _: int | None) -> Reason | None:
    lacks = shares(history.cluster, history.modalities)
    if not lacks:
        return None
    name, share, target = lacks[0]
    evidence = [f"{other}: {100 * real:.1f} % instead of {100 * aim:.1f} %" for other, real, aim in lacks]
    on_ranks = [(track.last(share_key(name)), rank) for rank, track in history.ranks.items()]
    worst = sorted((own, rank) for own, rank in on_ranks if not math.isnan(own))[:_WORST]
    if len(worst) > 1:
        evidence.append(f"{name} least on " + ", ".join(f"rank {rank} ({100 * own:.1f} %)" for own, rank in worst))
    return Reason(
        f"Give {name} slots, streams or weight: it has {100 * share:.1f} % of the picks and should have "
        f"{100 * target:.1f} %.",
        f"no slot holds a stream of {name}" if share == 0 else f"{name} has too few readers or streams for its weight",
        tuple(evidence),
    )


def shares(track: Track, modalities: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """Return (modality, newest realised share, newest target share), the one that lacks most first."""
    newest = [(name, track.last(share_key(name)), track.last(target_key(name))) for name in modalities]
    measured = [(name, share, target) for name, share, target in newest if not math.isnan(share + target)]
    return sorted(measured, key=lambda entry: entry[1] - entry[2])


def _restarts(history: History, _: int | None) -> Reason | None:
    picks, restarts = _sum(history.cluster, rows.PICKS), _sum(history.cluster, rows.RESTARTS)
    if not restarts:
        return None
    return Reason(
        rows.RESTARTS.remedy, f"a stream lasts {picks / restarts:.1f} picks on average before its slot takes another"
    )


def _switches(history: History, _: int | None) -> Reason | None:
    targets = [target for _, _, target in shares(history.cluster, history.modalities)]
    if not targets:
        return None
    random = 1 - math.fsum(target * target for target in targets)
    at_once = "batches" if history.facts.get("mixing.unit") == "batch" else "rows"
    return Reason(rows.SWITCH_RATE.remedy, evidence=(f"{at_once} that are drawn by the targets give {random:.2f}",))


def _waits(history: History, rank: int | None) -> Reason | None:
    starved = history.cluster.last(rows.STARVED_READERS.wandb_key)
    where = "" if rank is None else f" on rank {rank}"
    if math.isnan(starved):
        return None
    if starved:
        return Reason(
            f"Find the slot{where} that is never picked, and fix its weight or its stream.",
            f"{starved:.0f} readers wait longer than their weights explain",
        )
    return Reason(
        f"Raise the weight of the modality whose readers wait{where}, or give it fewer slots.",
        "small weights explain the waits: no reader is starved now",
    )


def _repeats(history: History, rank: int | None) -> Reason | None:
    row = rows.REPEATS
    own = mean([mean(values) for track in history.ranks.values() if (values := track.finite_values(row.wandb_key))])
    total = mean(history.cluster.finite_values(row.wandb_key))
    if math.isnan(own + total):
        return None
    between = 1 - (1 - total) / (1 - own) if own < 1 else 0.0
    evidence = (
        f"of a rank's own rows {100 * own:.0f} % are repeats, of what is left {100 * between:.0f} % are on other ranks",
    )
    if own >= between:
        where = "" if rank is None else f" (first on rank {rank})"
        return Reason(
            f"Seed or shard the data of each worker of a loader by its number too{where}.",
            "the workers of a rank's loader read the same samples, or the window has several passes over the data "
            "(tags need repeat= then), or draws with replacement from little of it",
            evidence,
        )
    return Reason("Seed or shard the data by rank.", "ranks read the same samples", evidence)


def _picks(history: History, rank: int | None) -> Reason | None:
    if not _sum(history.cluster, rows.PICKS):
        return Reason(
            "Count in the training process: tag the rows with otel_train.SourceMeter and read the batches through its "
            "counted(), or call MixingMeter.pick in the loop itself.",
            "the meter was told of no pick: picks in a DataLoader worker's copy of it reach nobody",
        )
    return None if rank is None else Reason(rows.PICKS.remedy, f"of rank {rank}'s rows the fewest are counted")


_REASONS: dict[str, Callable[[History, int | None], Reason | None]] = {
    rows.PICKS.name: _picks,
    rows.RESTARTS.name: _restarts,
    rows.STALENESS_MEAN.name: _waits,
    rows.STALENESS_MAX.name: _waits,
    rows.SWITCH_RATE.name: _switches,
    rows.MIX_DIVERGENCE.name: _divergence,
    rows.REPEATS.name: _repeats,
    rows.EVICTIONS.name: _evictions,
    rows.STALE_EVICTIONS.name: _stale,
    rows.FALSE_EVICTIONS.name: _capacity,
}
