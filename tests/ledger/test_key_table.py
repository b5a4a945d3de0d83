"""KeyTable: the core's and its twin do the same, whatever is done to them; buffers that don't fit change nothing."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_train.ledger.key_table import TABLE, KeyTable

TABLES = list(dict.fromkeys((KeyTable, TABLE)))
KEYS = st.lists(st.integers(0, 15) | st.sampled_from([-(2**63), -1, 2**63 - 1]), max_size=14)
STEPS = st.integers(-3, 12)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["store", "fetch"]), KEYS, STEPS),
        st.tuples(st.sampled_from(["move_step", "remember", "clear"]), KEYS, STEPS),
        st.tuples(st.sampled_from(["evict_stale", "reload"]), KEYS, STEPS),
    ),
    max_size=40,
)
BOUNDS = (1, 2, 4, 8)


def numbers(values: Any) -> array[int]:
    """Return int64 numbers."""
    return array("q", values)


def apply(table: KeyTable, call: str, keys: list[int], step: int) -> Any:
    """Make one call, and return what it has given."""
    count, given_keys = len(keys), numbers(keys)
    sources, rows, evicted, report = (numbers(bytes(8 * size)) for size in (count, count, count, 9))
    if call == "fetch":
        return table.fetch(given_keys, count, rows, step), [row == table_size(table) for row in rows]
    if call == "store":
        distinct = table.store(given_keys, count, sources, rows, evicted, step, report)
        kept = rows[max(0, distinct - table_size(table)) : distinct]
        assert len(set(kept)) == len(kept)
        return sources[:distinct], evicted[: report[2]], report
    if call == "move_step":
        return table.move_step(step, len(keys))
    if call == "remember":
        return table.remember(given_keys, count)
    if call == "evict_stale":
        return table.evict_stale(step)
    if call == "reload":
        held, _, steps = (numbers(bytes(part)) for part in table.entries())
        ring = numbers(bytes(table.ring()))
        table.clear()
        table.restore(held, steps, len(held), numbers(bytes(8 * len(held))))
        return table.remember(ring, len(ring))
    return table.clear()


def table_size(table: KeyTable) -> int:
    """Return the capacity: the row of a key that is not held."""
    rows = numbers([0])
    assert table.fetch(numbers([77]), 1, rows, 0) == 0
    return rows[0]


def state(table: KeyTable) -> Any:
    """Return what the table holds and remembers."""
    keys, rows, steps = (numbers(bytes(part)) for part in table.entries())
    assert len(set(rows)) == len(keys) == len(table)
    return keys, steps, numbers(bytes(table.ring())), table.remembered, [table.remembers(key) for key in range(16)]


@given(st.integers(1, 9), st.integers(0, 9), CALLS)
@example(2, 2, [("store", [1, 2], 9), ("store", [1], 3), ("move_step", [0], 9), ("evict_stale", [], 5)])  # a clock back
def test_core_equals_its_twin(capacity: int, remembered: int, calls: list[Any]) -> None:
    """Any history gives the same results, entries, order of use, steps and ring in both."""
    tables = [table(capacity, remembered, BOUNDS) for table in (KeyTable, TABLE)]
    for call in calls:
        first, second = (apply(table, *call) for table in tables)
        assert first == second
        first, second = map(state, tables)
        assert first == second


@pytest.mark.parametrize("table", TABLES)
def test_reuse_distances_precede_the_call(table: type[KeyTable]) -> None:
    """Each key's reuse distance follows from its position before the call, whichever others leave with it."""
    count, report, bounds = 2500, numbers(bytes(8 * 17)), tuple(2**power for power in range(12))
    keys = table(count, count, bounds)
    keys.remember(numbers(range(count)), count)
    order = numbers([*range(1, count, 3), *range(0, count, 7)])
    sources, rows, evicted = (numbers(bytes(8 * len(order))) for _ in range(3))
    distinct = keys.store(order, len(order), sources, rows, evicted, 1, report)
    distances = [count - key for key in set(order)]
    assert distinct == len(distances) == report[0] == report[1]
    assert report[3] == sum(distances)
    buckets = [bisect_left(bounds, distance) for distance in distances]
    assert report[4:].tolist() == [buckets.count(bucket) for bucket in range(13)]


@pytest.mark.parametrize("table", TABLES)
def test_evicted_again_moves_to_end(table: type[KeyTable]) -> None:
    """The ring keeps one entry for a key, and drops the oldest eviction first."""
    keys, seen = table(1, 3, BOUNDS), []
    for batch in ([1, 2, 3], [2], [4], [5, 6, 7, 8]):
        keys.remember(numbers(batch), len(batch))
        seen.append(numbers(bytes(keys.ring())).tolist())
    assert seen == [[1, 2, 3], [1, 3, 2], [3, 2, 4], [6, 7, 8]]


@pytest.mark.parametrize("table", TABLES)
def test_holds_many_keys(table: type[KeyTable]) -> None:
    """A full table finds each of many keys, and the ring each of those that made room, through all its moves."""
    count = 20_000
    keys, report = table(count, count, BOUNDS), numbers(bytes(8 * 9))
    for first in range(0, 5 * count, count):
        batch = numbers(range(first, first + count))
        sources, rows, evicted = (numbers(bytes(8 * count)) for _ in range(3))
        assert keys.store(batch, count, sources, rows, evicted, 1, report) == count
        assert keys.fetch(batch, count, rows, 1) == count
        assert sorted(rows) == list(range(count))
    assert numbers(bytes(keys.ring())) == numbers(range(3 * count, 4 * count))


@pytest.mark.skipif(TABLE is KeyTable, reason="the twin has Python's own checks")
@pytest.mark.parametrize(
    "call",
    [
        lambda table, ones: table.fetch(ones, 3, numbers([0]), 1),
        lambda table, ones: table.fetch(ones, -1, numbers([0, 0, 0]), 1),
        lambda table, ones: table.fetch(ones, 3, ones, 1),
        lambda table, ones: table.fetch(ones, 3, array("d", [0.0] * 3), 1),
        lambda table, ones: table.fetch(ones, 3, numbers([0, 0, 0]), 2**63),
        lambda table, ones: table.fetch(ones, 3),
        lambda table, ones: table.store(ones, 3, *(numbers([0] * 3) for _ in range(3)), 1, numbers([0] * 8)),
        lambda table, ones: table.store(ones, 3, *[numbers([0] * 3)] * 3, 1, numbers([0] * 9)),
        lambda table, ones: table.restore(ones, ones[:], 3, numbers([0] * 3)),
        lambda table, ones: table.remember(ones, 4),
    ],
)
def test_wrong_buffers_change_nothing(call: Any) -> None:
    """The core checks every buffer, count and size before it begins."""
    table = TABLE(2, 2, BOUNDS)
    before = state(table)
    with pytest.raises((ValueError, TypeError, OverflowError, MemoryError)):
        call(table, numbers([1, 2, 3]))
    assert state(table) == before


@pytest.mark.skipif(TABLE is KeyTable, reason="as above")
@pytest.mark.parametrize("sizes", [(0, 1, ()), (1, -1, ()), (2**62, 1, ()), (1, 2**62, ()), (1, 1, (1,) * 65), (1, 1)])
def test_wrong_sizes_raise(sizes: Any) -> None:
    """A table that can't be made is refused before memory is asked for."""
    with pytest.raises((ValueError, TypeError)):
        TABLE(*sizes)
