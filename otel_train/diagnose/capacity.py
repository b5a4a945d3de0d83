"""Say how many entries the ledger should hold: the misses that each larger capacity would have saved.

The ring of evicted keys continues the LRU stack of the entries (Mattson, Gecsei, Slutz and Traiger 1970, "Evaluation
techniques for storage hierarchies"): a key at depth d of the ring would be held by an owner of d entries more. So one
run at one capacity tells the misses at all larger ones, as far as the ring reaches. They are exactly those of a run of
the same job at that capacity where

- each fetch is followed by a store of the same ids before the next call (the recurrent step: state in, state out). A
  fetch alone is a use of a held entry and nothing for a missing one, so its order of use depends on the capacity;
- nothing is dropped for another reason: with `max_idle_steps` a larger shard drops what sits unused too, and a shard
  with free entries is not a full stack; `LedgerMeter.discard` leaves free entries as well.

Stores may come in batches of any size: an owner looks up all keys of a call first. The distances are known in buckets,
so the misses are given at the buckets' bounds only, where they are exact, and nothing is guessed between two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from otel_train.catalogue import REUSE_BOUNDS, rows
from otel_train.number_text import byte_size
from otel_train.read.history import History

SHARES = (0.5, 0.9, 0.99)
"""The shares of the false evictions that the advice is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPoint:
    """Misses that one capacity would have had, in the steps that the source has."""

    capacity: int
    """Entries of each rank."""
    left: float
    """False evictions that it would still have had."""
    saved: float
    """Part of the false evictions that it would have saved."""
    extra_bytes: int | None
    """Memory of the states that it takes more than now, a rank; None where an entry's size is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A capacity that would have saved a share of the false evictions."""

    share: float
    point: CapacityPoint
    """The smallest known capacity that is enough."""
    too_small: int
    """The next smaller known capacity, which is not enough: the smallest of all lies above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """The miss-ratio curve from the present capacity to where the ring of evicted keys ends."""

    capacity: int
    """Entries of each rank, now."""
    false_evictions: float
    """Sum over the steps and ranks that the source has."""
    points: tuple[CapacityPoint, ...]
    """The present capacity first; each is exact where `caveats` is empty."""
    advice: tuple[Advice, ...]
    """One for each of `SHARES` that a known capacity saves; all of them, where the ring's size is known."""
    entry_bytes: int | None
    reach: int | None
    """The largest capacity that the ring covers; None where its size is not known."""
    beyond: float
    """Part of the fresh writes that were not false evictions: new streams, or evicted so long ago that the ring had
    forgotten them. What more capacity than `reach` would save is within this part; NaN where it is not known."""
    caveats: tuple[str, ...] = ()
    """Reasons why the numbers are estimates; empty where they are exact."""

    def for_share(self, share: float) -> Advice | None:
        """Return the advice for one of `SHARES`, None where no known capacity saves as much."""
        return next((advice for advice in self.advice if advice.share == share), None)

    def remedy(self, share: float = 0.9) -> str:
        """Return the advice as one sentence with its numbers."""
        advice = self.for_share(share)
        point = self.points[-1] if advice is None else advice.point
        memory = "" if point.extra_bytes is None else f", for {byte_size(point.extra_bytes)} more a rank"
        about = "about " if self.caveats else ""
        return (
            f"Set ledger.capacity from {self.capacity} to {point.capacity} a rank: "
            f"{about}{100 * point.saved:.0f} % of the false evictions go{memory}."
        )


def advise(history: History) -> CapacityPlan | None:
    """Return the misses of larger capacities; None where there were no false evictions or they are not known.

    Args:
        history: A run, with its reuse distances.
    """
    counts = history.reuse[:-1]
    total = math.fsum(counts)
    capacity = _capacity(history)
    if not total > 0 or capacity is None:
        return None
    ring = _whole(history.facts.get("ledger.recently_evicted"))
    entry_bytes = _whole(history.facts.get("ledger.entry_bytes"))
    points = tuple(
        CapacityPoint(
            capacity=capacity + more,
            left=total - saved,
            saved=saved / total,
            extra_bytes=None if entry_bytes is None else more * entry_bytes,
        )
        for more, saved in _saved(counts, ring)
    )
    return CapacityPlan(
        capacity=capacity,
        false_evictions=total,
        points=points,
        advice=tuple(_advice(points, share) for share in SHARES if points[-1].saved >= share),
        entry_bytes=entry_bytes,
        reach=None if ring is None else capacity + ring,
        beyond=_beyond(history),
        caveats=_caveats(history, counts, ring),
    )


def _saved(counts: Sequence[float], ring: int | None) -> list[tuple[int, float]]:
    """Return (entries more, false evictions saved), up to the first capacity that saves all that can be known."""
    saved = [(0, 0.0), *zip(map(int, REUSE_BOUNDS), accumulate(counts[: len(REUSE_BOUNDS)]), strict=True)]
    total = math.fsum(counts)
    if ring is not None and ring not in REUSE_BOUNDS:
        # No distance is larger than the ring: there all of them are saved.
        saved = [*((more, part) for more, part in saved if more < ring), (ring, total)]
    return [saved[0], *(after for before, after in pairwise(saved) if before[1] < total)]


def _advice(points: Sequence[CapacityPoint], share: float) -> Advice:
    index = next(index for index, point in enumerate(points) if point.saved >= share)
    return Advice(share=share, point=points[index], too_small=points[index - 1].capacity)


def _capacity(history: History) -> int | None:
    capacity = _whole(history.facts.get("ledger.capacity"))
    if capacity is None and history.world_size:
        everywhere = history.cluster.last(rows.LEDGER_CAPACITY.wandb_key)
        capacity = None if math.isnan(everywhere) else round(everywhere / history.world_size)
    return capacity


def _beyond(history: History) -> float:
    tracks = list(history.ranks.values()) or [history.cluster]
    fresh, false = (
        math.fsum(track.finite_sum(row.wandb_key)[0] for track in tracks)
        for row in (rows.FRESH_WRITES, rows.FALSE_EVICTIONS)
    )
    return max(0.0, fresh - false) / fresh if fresh else math.nan


def _caveats(history: History, counts: Sequence[float], ring: int | None) -> tuple[str, ...]:
    caveats = []
    idle = history.facts.get("ledger.max_idle_steps")
    tracks = list(history.ranks.values()) or [history.cluster]
    stale = any(track.finite_sum(rows.STALE_EVICTIONS.wandb_key)[0] for track in tracks)
    if idle is not None or stale:
        after = "" if idle is None else f" after {idle} steps"
        caveats.append(f"entries that sit unused are dropped{after} at any capacity, so the savings are estimates")
    if ring is None and counts[-1]:
        caveats.append(f"distances beyond {REUSE_BOUNDS[-1]:.0f} entries are not told apart")
    return tuple(caveats)


def _whole(fact: object) -> int | None:
    return fact if isinstance(fact, int) and not isinstance(fact, bool) and fact > 0 else None
