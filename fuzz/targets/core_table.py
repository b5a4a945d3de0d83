"""The ledger's table of keys, the hashing of ids and their route, in the native core beside the twins in Python."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from fuzz.choices import Choices
from fuzz.targets.core_calls import answer
from otel_train.ledger import hashing, key_table, routing
from otel_train.native import core
from otel_train.stable_hash import stable_hash

CALLS = 60
MOST = 24
"""The most keys of a call."""
BOUNDS = (1, 2, 4, 8)
IDS: tuple[Any, ...] = (
    "a",
    "b",
    "å",
    "x" * 300,
    "",
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    True,
    None,
    1.5,
    b"a",
    "\udcff",
)


def run(data: bytes) -> None:
    """Do the same with both."""
    if core is None:
        return
    choices = Choices(data)
    if choices.below(4) == 0:
        _route(choices)
        _hash(choices)
    else:
        _use_tables(choices)


def _use_tables(choices: Choices) -> None:
    size = 1 + choices.below(12), choices.below(12), BOUNDS[: choices.below(5)]
    tables: list[Any] = [core.KeyTable(*size), key_table.KeyTable(*size)]  # type: ignore[union-attr]
    for _ in range(CALLS):
        if not choices:
            break
        call = _call(choices, size)
        answers = [call(table) for table in tables]
        assert answers[0] == answers[1], (size, answers)
    states = [(len(table), table.remembered, table.entries(), table.ring()) for table in tables]
    assert states[0] == states[1]


def _call(choices: Choices, size: tuple[int, int, tuple[int, ...]]) -> Callable[[Any], object]:
    """Return a call of a table, which gives what the call returns and writes."""
    count = choices.below(MOST)
    keys = [choices.int64() for _ in range(count)]
    step = choices.below(20) if not choices.rarely() else choices.int64()
    later = choices.below(20)
    match choices.below(10):
        case 0 | 1:
            return lambda table: _fetched(table, keys, step)
        case 2 | 3 | 4 | 5:
            return lambda table: _stored(table, keys, step, len(size[2]))
        case 6:
            return lambda table: table.move_step(step, later)
        case 7:
            return lambda table: table.evict_stale(step)
        case 8:
            return lambda table: [table.remembers(key) for key in keys]
        case _:
            return lambda table: table.remember(array("q", keys), count)


def _fetched(table: Any, keys: list[int], step: int) -> object:
    rows = array("q", [0] * len(keys))
    return table.fetch(array("q", keys), len(keys), rows, step), rows


def _stored(table: Any, keys: list[int], step: int, bounds: int) -> object:
    sources, rows, evicted = (array("q", [0] * len(keys)) for _ in range(3))
    report = array("q", [0] * (key_table.BUCKETS + bounds + 1))
    distinct = table.store(array("q", keys), len(keys), sources, rows, evicted, step, report)
    surplus = max(0, distinct - len(table))  # the table is full then
    return distinct, sources[:distinct], rows[surplus:distinct], evicted[: report[key_table.EVICTIONS]], report


def _route(choices: Choices) -> None:
    count, ranks = choices.below(MOST), 1 + choices.below(9)
    keys = array("q", [choices.int64() for _ in range(count)])
    plans = []
    for plan in (core.route, routing.route):  # type: ignore[union-attr]
        order, inverse, sent = (array("q", [0] * count) for _ in range(3))
        sends = array("q", [0] * ranks)
        plan(keys, count, order, inverse, sent, sends)
        plans.append((order, inverse, sent, sends))
    assert plans[0] == plans[1]


def _hash(choices: Choices) -> None:
    maps: list[tuple[dict[str, int], dict[str, int]]] = [({}, {"b": 7}), ({}, {"b": 7})]
    for _ in range(8):
        count, most, longest = choices.below(MOST), choices.below(8), choices.below(9)
        ids = [choices.one(IDS) if choices.below(8) else choices.int64() for _ in range(count)]
        form: Callable[[list[Any]], Any] = choices.one([list, tuple])
        results = []
        for hash_ids, seen in zip((core.hash_ids, hashing.hash_ids), maps, strict=True):  # type: ignore[union-attr]
            keys = array("q", [0] * count)
            results.append((answer(hash_ids, form(ids), keys, *seen, most, longest, stable_hash), keys))
        assert results[0] == results[1], results
        assert maps[0] == maps[1]
    numbers = array("q", [choices.int64() for _ in range(1 + choices.below(MOST))])
    mixed = [numbers[:], numbers[:]]
    core.mix_ids(mixed[0], len(numbers))  # type: ignore[union-attr]
    hashing.hash_ids([*numbers], mixed[1], {}, {}, 0, 0, stable_hash)
    assert mixed[0] == mixed[1]
