"""The exact picks of each interval, computed from the decayed counts in the records of ranks.

What ranks draw in one order was drawn once: of such ranks the picks of the first count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from otel_train.catalogue import MOST_COUNTED, Layout, rows
from otel_train.read.history import MixInterval
from otel_train.read.pick_orders import OrderGroups, PickOrders
from otel_train.read.repeated_draws import repetition
from otel_train.ring import Fact

NEEDED = (rows.PICK_COUNT, rows.PAIR_COUNT, *rows.MIX_DIVERGENCE.measures)
"""Measures without which nothing is computed."""


class IntervalPicks:
    """The picks of the ranks that have been added, by interval."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        """Decayed counts and targets of each rank's newest record."""
        self._intervals: dict[int, dict[int, MixInterval]] = {}
        """By step and rank."""
        self._orders = PickOrders()
        self._complementary = False
        """Whether the ranks hold the mix together only: equal orders are parts of it then, not the same draws."""

    def add(self, rank: int, step: int, layout: Layout, sums: Sequence[float], facts: Mapping[str, Fact]) -> None:
        """Undo the decay of a record: the picks are the growth of the counts since the rank's record before.

        Args:
            rank: The rank.
            step: The step that ends the interval.
            layout: The layout of the record.
            sums: Its sums.
            facts: The job's; without that about the decay nothing is computed.
        """
        horizon = facts.get("mixing.horizon")
        if any(measure.name not in layout.offsets for measure in NEEDED):
            return
        self._complementary = is_complementary(facts)
        if not self._complementary:
            self._orders.add(rank, step, layout, sums)
        width = len(layout.modalities)
        starts = [layout.offsets[measure.name] for measure in rows.MIX_DIVERGENCE.measures]
        counts, targets = (tuple(sums[start : start + width]) for start in starts)
        before = self._newest.get(rank)
        self._newest[rank] = counts, targets
        picks = sums[layout.offsets[rows.PICKS.name]]
        if before is None or not isinstance(horizon, int | float) or not horizon > 0:
            return
        interval = one_interval(before[0], counts, before[1], targets, picks, horizon)
        if interval is not None:
            # Each draw makes a pair with the one before it.
            by_batch = facts.get("mixing.unit") == "batch"
            at_once = drawn_at_once(picks, sums[layout.offsets[rows.PAIR_COUNT.name]]) if by_batch else 1.0
            self._intervals.setdefault(step, {})[rank] = MixInterval(step, *interval, at_once)

    def keep(self, newest: int) -> None:
        """Forget all but so many of the newest intervals."""
        for step in sorted(self._intervals)[:-newest]:
            del self._intervals[step]
        self._orders.keep(newest)

    def joined(self) -> tuple[list[MixInterval], tuple[tuple[int, ...], ...]]:
        """Return the picks of all ranks that draw for themselves, interval by interval, and the groups of ranks."""
        orders = self._orders.compare()
        of_ranks: dict[int, list[MixInterval]] = {}
        for _, by_rank in sorted(self._intervals.items()):
            for rank, interval in by_rank.items():
                of_ranks.setdefault(rank, []).append(interval)
        times = 1.0 if self._complementary else repetition(of_ranks.values())
        return joined_by_step(of_ranks, orders, times), orders.newest


def is_complementary(facts: Mapping[str, Fact]) -> bool:
    """Tell whether the ranks hold the mix together only: equal orders are parts of it then, not the same draws."""
    return facts.get("mixing.scope") == "cluster" and facts.get("mixing.unit") != "batch"


def one_interval(  # noqa: PLR0917  # two records, each with two vectors
    before: Sequence[float],
    now: Sequence[float],
    aimed_before: Sequence[float],
    aimed: Sequence[float],
    picks: float,
    horizon: float,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the picks and the target shares of an interval; None where they are not known.

    Args:
        before: Decayed counts of the record before, float64 [modalities].
        now: Those of the record.
        aimed_before: Decayed targets of the record before.
        aimed: Those of the record.
        picks: Picks of the interval.
        horizon: Picks after which a pick's part has decayed to 1/e.
    """
    if not 0 < picks < MOST_COUNTED:
        return None
    keep = math.exp(-picks / horizon)
    new = tuple(max(0.0, float(round(count - old * keep))) for count, old in zip(now, before, strict=True))
    aims = [max(0.0, aim - old * keep) for aim, old in zip(aimed, aimed_before, strict=True)]
    total = math.fsum(aims)
    # Where records in between were overwritten, the counts before are not those of the record before.
    if not 0 < total < math.inf or math.fsum(new) != picks:
        return None
    return new, tuple(aim / total for aim in aims)


def drawn_at_once(picks: float, draws: float) -> float:
    """Return how many picks one draw gave."""
    return max(1.0, picks / draws) if draws else 1.0


def joined_by_step(ranks: Mapping[int, Sequence[MixInterval]], orders: OrderGroups, times: float) -> list[MixInterval]:
    """Add up the picks of the ranks that draw for themselves, step by step.

    Args:
        ranks: The intervals of each rank.
        orders: Which ranks draw alike.
        times: How often each draw comes.
    """
    by_step: dict[int, dict[int, MixInterval]] = {}
    for rank, intervals in ranks.items():
        for interval in intervals:
            by_step.setdefault(interval.step, {})[rank] = interval
    return [_joined(step, _drawn_once(step, by_rank, orders), times) for step, by_rank in sorted(by_step.items())]


def _drawn_once(step: int, by_rank: dict[int, MixInterval], orders: OrderGroups) -> list[MixInterval]:
    """Return the intervals of a step without those of ranks that draw like one before them."""
    by_key: dict[object, MixInterval] = {}
    for rank, interval in sorted(by_rank.items()):
        key = orders.key(rank, step)
        by_key.setdefault((rank,) if key is None else key, interval)
    return list(by_key.values())


def _joined(step: int, intervals: Sequence[MixInterval], times: float) -> MixInterval:
    """Add up the ranks' picks; the shares are those of all picks together."""
    totals = [sum(interval.picks) for interval in intervals]
    picks = tuple(map(sum, zip(*(interval.picks for interval in intervals), strict=True)))
    everything = sum(totals) or 1.0
    weighted = [[share * total for share in interval.shares] for interval, total in zip(intervals, totals, strict=True)]
    draws = sum(total / interval.rows for interval, total in zip(intervals, totals, strict=True)) or 1.0
    shares = tuple(sum(column) / everything for column in zip(*weighted, strict=True))
    return MixInterval(step, picks, shares, max(1.0, everything / draws) * times)
