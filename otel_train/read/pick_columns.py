"""The exact picks of all intervals of a ring at once: what `interval_picks` does record by record."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import add, mul, truediv
from typing import Any

from otel_train.catalogue import rows
from otel_train.how_far import tell
from otel_train.native import core
from otel_train.read.column_values import MOST_SOURCES, beside
from otel_train.read.history import MixInterval
from otel_train.read.interval_picks import NEEDED, drawn_at_once, is_complementary, joined_by_step, one_interval
from otel_train.read.mix import Mix
from otel_train.read.pick_orders import OrderGroups, PickOrders, bits_of
from otel_train.read.repeated_draws import repetition
from otel_train.ring import Fact
from otel_train.ring.columns import Heads, RingColumns

_AT_ONCE = 1 << 16
"""Records whose picks are computed together."""


class PickColumns:
    """The picks of whole rings, a rank each."""

    def __init__(self) -> None:
        self._ranks: dict[int, Mix] = {}
        self._drawing: dict[int, tuple[RingColumns, Heads, int, int]] = {}
        """Rings that have the signs of their orders, and the indices of the first sign and of the count of picks."""
        self._complementary = False

    def add(self, rank: int, ring: RingColumns, heads: Heads, facts: Mapping[str, Fact]) -> None:
        """Read the picks of a rank.

        Args:
            rank: The rank.
            ring: Its ring.
            heads: The heads of its own records; their steps grow.
            facts: The job's; without that about the decay nothing is computed.
        """
        layout = ring.reader.base_layout
        if any(measure.name not in layout.offsets for measure in NEEDED) or not heads.steps:
            return
        self._complementary = is_complementary(facts)
        self._read_mix(rank, ring, heads, facts)
        start, count = (layout.offsets.get(measure.name) for measure in (rows.ORDER_SIGNS, rows.ORDER_COUNT))
        if not self._complementary and start is not None and count is not None:
            self._drawing[rank] = ring, heads, start, count

    def _read_mix(self, rank: int, ring: RingColumns, heads: Heads, facts: Mapping[str, Fact]) -> None:
        layout = ring.reader.base_layout
        horizon, width = facts.get("mixing.horizon"), len(layout.modalities)
        if not isinstance(horizon, int | float) or not horizon > 0 or not width:
            return
        by_batch = facts.get("mixing.unit") == "batch"
        mix, number = Mix.zeros(width, len(heads.steps)), 0
        # Each part begins with the last record of the one before.
        for begin in range(0, max(1, len(heads.steps) - 1), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE + 1)
            number = _fill(
                mix, number, ring, heads.sequences[part], heads.steps[part], horizon=float(horizon), by_batch=by_batch
            )
            tell("picks read", part.stop, len(heads.steps))
        mix.cut(number)
        self._ranks[rank] = mix

    def joined(self) -> tuple[Sequence[MixInterval], tuple[tuple[int, ...], ...]]:
        """Return the picks of all ranks that draw for themselves, interval by interval, and the groups of ranks."""
        orders = self._orders()
        times = 1.0 if self._complementary else repetition(self._ranks.values())
        mixes = [mix for _, mix in sorted(self._ranks.items()) if len(mix)]
        if all(mix.steps == mixes[0].steps for mix in mixes) and orders.all_differ(self._ranks):
            return _added(mixes, times), orders.newest
        return joined_by_step(self._ranks, orders, times), orders.newest

    def _orders(self) -> OrderGroups:
        if len(self._drawing) == 1:  # it is like no other, whatever it draws
            [(rank, (ring, heads, _, count))] = self._drawing.items()
            newest = _newest_with_picks(ring, heads, count)
            return OrderGroups(newest, {rank: b"\0"} if newest else {})
        orders = PickOrders()
        for rank, of_rank in self._drawing.items():
            steps, bits = _signs(*of_rank)
            if steps:
                orders.add_columns(rank, steps, bits)
        return orders.compare()


def _newest_with_picks(ring: RingColumns, heads: Heads, count: int) -> array[int]:
    """Return the newest step with picks; none where no step has any."""
    for end in range(len(heads.steps), 0, -_AT_ONCE):
        part = slice(max(0, end - _AT_ONCE), end)
        [drawn] = ring.columns(heads.sequences[part], [count])
        if any(drawn):
            return array("q", list(compress(heads.steps[part], drawn))[-1:])
    return array("q")


def _signs(ring: RingColumns, heads: Heads, start: int, count: int) -> tuple[array[int], bytes]:
    """Return the steps with picks, and the signs of their orders as bits."""
    steps, bits = array("q"), bytearray()
    for begin in range(0, len(heads.steps), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        drawn, *signs = ring.columns(heads.sequences[part], [count, *range(start, start + rows.ORDER_SIGNS.size)])
        of_part = heads.steps[part], bits_of(signs)
        if not all(drawn):
            of_part = array("q", compress(of_part[0], drawn)), bytes(compress(of_part[1], drawn))
        steps.extend(of_part[0])
        bits.extend(of_part[1])
    return steps, bytes(bits)


def _fill(
    mix: Mix,
    begin: int,
    ring: RingColumns,
    sequences: array[int],
    steps: array[int],
    *,
    horizon: float,
    by_batch: bool,
) -> int:
    """Write the intervals between some records to a mix from an index on, and return the index after them."""
    layout, length, width = ring.reader.base_layout, len(steps), len(mix.picks)
    starts = [layout.offsets[measure.name] for measure in rows.MIX_DIVERGENCE.measures]
    counts, targets = (ring.columns(sequences, range(start, start + width)) for start in starts)
    drawn = [layout.offsets[rows.PICKS.name], *([layout.offsets[rows.PAIR_COUNT.name]] if by_batch else [])]
    picks, *pairs = ring.columns(sequences, drawn)
    kept = array("q", bytes(8 * length))
    new, shares = (array("d", bytes(8 * width * length)) for _ in range(2))
    number = _interval_picks(width, length, horizon, beside(counts), beside(targets), picks, kept, new, shares)
    end = begin + number
    mix.steps[begin:end] = array("q", [steps[at] for at in kept[:number]])
    for columns, values in ((mix.picks, new), (mix.shares, shares)):
        for source, column in enumerate(columns):
            column[begin:end] = values[source * length : source * length + number]
    if by_batch:
        mix.rows[begin:end] = array("d", [drawn_at_once(picks[at], pairs[0][at]) for at in kept[:number]])
    else:
        mix.rows[begin:end] = array("d", [1.0]) * number
    return end


def _added(mixes: Sequence[Mix], times: float) -> Mix:
    """Add up intervals of the same steps; the shares are those of all picks together."""
    if not mixes:
        return Mix(0)
    if len(mixes) == 1:
        return _alone(mixes[0], times)
    joined = Mix.zeros(len(mixes[0].picks), len(mixes[0]))
    joined.steps = mixes[0].steps
    number = len(joined.steps)
    everything, draws = (array("d", bytes(8 * number)) for _ in range(2))
    for mix in mixes:
        totals = mix.totals()
        _add(everything, totals)
        _add(draws, array("d", map(truediv, totals, mix.rows)))
        for picks, own in zip(joined.picks, mix.picks, strict=True):
            _add(picks, own)
        for shares, own in zip(joined.shares, mix.shares, strict=True):
            _add(shares, _products(own, totals))
    joined.shares = [array("d", map(truediv, shares, everything)) for shares in joined.shares]
    if everything == draws:
        joined.rows = array("d", [times]) * number
    else:
        pairs = zip(everything, draws, strict=True)
        joined.rows = array("d", [max(1.0, picks / drawn) * times for picks, drawn in pairs])
    return joined


def _add(sums: array[float], column: array[float]) -> None:
    """Add in place."""
    if core is None:
        sums[:] = array("d", map(add, sums, column))
    else:
        core.add(sums, column)


def _products(column: array[float], factors: array[float]) -> array[float]:
    """Return a column times another."""
    if core is None:
        return array("d", map(mul, column, factors))
    products = column[:]
    core.multiply(products, factors)
    return products


def _alone(mix: Mix, times: float) -> Mix:
    """Return what `_added` would of one rank's intervals, which are changed."""
    totals = mix.totals()
    for source, column in enumerate(mix.shares):
        mix.shares[source] = array("d", map(truediv, map(mul, column, totals), totals))
    if all(map((1.0).__eq__, mix.rows)):
        mix.rows = array("d", [times]) * len(mix)
        return mix
    draws = map(truediv, totals, mix.rows)
    mix.rows = array("d", [max(1.0, pair[0] / pair[1]) * times for pair in zip(totals, draws, strict=True)])
    return mix


def _interval_picks_twin(  # noqa: PLR0917  # as the core
    length: int,
    width: int,
    horizon: float,
    counts: array[float],
    targets: array[float],
    picks: array[float],
    kept: array[int],
    new: array[float],
    shares: array[float],
) -> int:
    """Undo the decay of each row since the one before; see the core's."""
    number = 0
    at_counts, at_targets = (
        list(zip(*(values[begin : begin + length] for begin in range(0, width * length, length)), strict=True))
        for values in (counts, targets)
    )
    for at in range(1, length):
        before, aimed_before = at_counts[at - 1], at_targets[at - 1]
        interval = one_interval(before, at_counts[at], aimed_before, at_targets[at], picks[at], horizon)
        if interval is not None:
            for column, values in ((new, interval[0]), (shares, interval[1])):
                for source, value in enumerate(values):
                    column[source * length + number] = value
            kept[number] = at
            number += 1
    return number


def _interval_picks(width: int, *args: Any) -> int:
    """Undo the decay of each row, in the core where it takes so many sources."""
    if core is None or width > MOST_SOURCES:
        return _interval_picks_twin(args[0], width, *args[1:])
    return int(core.interval_picks(args[0], width, *args[1:]))
