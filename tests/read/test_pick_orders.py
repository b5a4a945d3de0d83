"""Ranks that draw in one order are told from each other's signs, and their picks count once."""

from __future__ import annotations

import random
from array import array

import pytest

from otel_train.catalogue import MIXING, Layout, rows
from otel_train.read.pick_orders import COMPARED, PickOrders
from tests.support.mixing_schemes import alike_ranks, in_groups, independent_rows, mixed_job

WEIGHTS = {"a": 1.0, "b": 3.0}


def test_alike_ranks_count_once() -> None:
    """The picks of an interval are those of one rank of each group."""
    for scheme, drawn in ((independent_rows, 6), (in_groups(3), 2), (alike_ranks, 1)):
        history = mixed_job(scheme, weights=WEIGHTS, ranks=6, rows=8, steps=40)
        assert {sum(interval.picks) for interval in history.mix} == {8.0 * drawn}


def test_ranks_part_at_their_first_difference() -> None:
    """Ranks that are alike until a step count once until then; each other's missing steps don't part them."""
    layout = Layout(MIXING, ("a", "b"))
    orders = PickOrders()
    count, signs = layout.offsets[rows.ORDER_COUNT.name], layout.offsets[rows.ORDER_SIGNS.name]
    for step in range(100):
        for rank in (0, 1, 2):
            sums = [0.0] * layout.sums
            sums[count] = 1.0
            bits = step * 7919 + 13 * (rank == 2 and step >= 60)
            sums[signs : signs + 4] = [1.0 if bits >> bit & 1 else -1.0 for bit in range(4)]
            if (rank, step) not in {(0, 0), (1, 50)}:
                orders.add(rank, step, layout, sums)
    groups = orders.compare()
    assert groups.newest == ((0, 1), (2,))
    assert groups.key(0, 50) == groups.key(2, 50) == groups.key(1, 50)
    assert groups.key(0, 0) == groups.key(0, COMPARED)
    assert groups.key(0, 99) != groups.key(2, 99)


def test_old_rings_tell_no_order() -> None:
    """Records without signs, of an earlier release or a source of the user's own, leave each rank by itself."""
    layout = Layout((rows.PICKS,))
    orders = PickOrders()
    orders.add(0, 1, layout, [3.0])
    groups = orders.compare()
    assert (groups.newest, groups.key(0, 1)) == ((), None)


@pytest.mark.parametrize("begin", [0, 5, 24])
@pytest.mark.parametrize("alike", [COMPARED - 1, COMPARED])
def test_ranks_differ_until_enough_agree(begin: int, alike: int) -> None:
    """Two ranks draw alike where as many of their records agree as are compared, wherever these begin."""
    orders, source = PickOrders(), random.Random(0)
    bits = [[source.randrange(16) for _ in range(begin + alike + 5)] for _ in range(3)]
    bits[2] = [bit if begin <= at < begin + alike else 15 - bit for at, bit in enumerate(bits[1])]
    for rank, of_rank in enumerate(bits):
        orders.add_columns(rank, array("q", range(len(of_rank))), bytes(of_rank))
    assert orders.compare().all_differ(range(3)) == (alike < COMPARED)
