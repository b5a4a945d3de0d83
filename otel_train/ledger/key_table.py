"""The keys that one rank holds, their rows and order of use, and the ring of evicted keys: one pass over a call's keys.

`KeyTable` here is the twin of the core's, which has the same methods; `TABLE` is the one that runs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable

from otel_train.ledger.eviction_order import EvictionOrder
from otel_train.native import core

FRESH, FALSE_EVICTIONS, EVICTIONS, REUSE_SUM, BUCKETS = range(5)
"""Indices of a store's report; from `BUCKETS` on it has false evictions by reuse distance."""


class KeyTable:
    """At most `capacity` keys in the order of their last use; each keeps one row while it is held.

    All numbers come and go in arrays of int64 (`array("q")`), which may be longer than needed and must not overlap.

    Args:
        capacity: The most keys that are held at a time, and the number of rows.
        remembered: The most evicted keys that are remembered; 0 for none.
        bounds: Upper bounds of the reuse distance's buckets, rising; one bucket more lies beyond.
    """

    def __init__(self, capacity: int, remembered: int, bounds: tuple[int, ...]) -> None:
        self._capacity = capacity
        self._bounds = bounds
        self._evicted: EvictionOrder[int] = EvictionOrder(remembered)
        self._free: list[int] = []
        self._rows: OrderedDict[int, int] = OrderedDict()
        self._steps: dict[int, int] = {}
        self.clear()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def remembered(self) -> int:
        """Number of evicted keys that are remembered now."""
        return len(self._evicted)

    def fetch(self, keys: array[int], count: int, rows: array[int], step: int) -> int:
        """Look up keys; a use of those that are held, so that the order is that of their last occurrences.

        Args:
            keys: The keys, [count], duplicates too.
            count: Number of keys.
            rows: Receives the row of each key, [count]; the capacity where it is not held.
            step: The step of this use.

        Returns:
            How many of the keys are held.
        """
        hits = 0
        for index, key in enumerate(keys[:count]):
            row = self._rows.get(key)
            rows[index] = self._capacity if row is None else row
            if row is not None:
                self._use(key, step)
                hits += 1
        return hits

    def store(  # noqa: PLR0917  # as the core's
        self,
        keys: array[int],
        count: int,
        sources: array[int],
        rows: array[int],
        evicted: array[int],
        step: int,
        report: array[int],
    ) -> int:
        """Use keys in the order of their last occurrences, adding those that are not held; then evict what overflows.

        Of more distinct keys than the capacity, the first ones, the surplus, never get a row: they are evicted as they
        come, after all other entries. A key that is added leaves the ring of evicted keys; its reuse distance is that
        of before the call, because all keys of a call are looked up before any of them makes room.

        Args:
            keys: The keys, [count], duplicates too.
            count: Number of keys.
            sources: Receives the index of each distinct key's last occurrence, ascending.
            rows: Receives the row of each distinct key, in the same order; undefined for the surplus.
            evicted: Receives the evicted keys, in the order of their eviction.
            step: The step of this use.
            report: Receives the counts: fresh writes, false evictions, evictions, the sum of the reuse distances, and
                the false evictions by reuse distance.

        Returns:
            The number of distinct keys.
        """
        given = keys[:count]
        indices = sorted({key: index for index, key in enumerate(given)}.values())
        report[:] = array("q", bytes(8 * len(report)))
        distinct = [given[index] for index in indices]
        self._evicted.settle()
        for key in distinct:
            if key in self._rows:
                self._use(key, step)
                continue
            report[FRESH] += 1
            if key in self._evicted:
                distance = self._evicted.take(key)
                report[FALSE_EVICTIONS] += 1
                report[REUSE_SUM] += distance
                report[BUCKETS + bisect_left(self._bounds, distance)] += 1
        surplus = max(0, len(distinct) - self._capacity)
        excess = len(self) + report[FRESH] - self._capacity
        gone = [self._drop(next(iter(self._rows))) for _ in range(excess - surplus)]
        gone += [self._drop(key) for key in distinct[:surplus]]
        self._evicted.extend(gone)
        evicted[: len(gone)] = array("q", gone)
        report[EVICTIONS] = len(gone)
        for index, key in enumerate(distinct[surplus:], start=surplus):
            if key not in self._rows:
                self._rows[key] = self._free.pop()
            self._use(key, step)
            rows[index] = self._rows[key]
        sources[: len(indices)] = array("q", indices)
        return len(indices)

    def move_step(self, old: int, new: int) -> None:
        """Have entries that were last used in step `old` be used in step `new`."""
        for key, step in self._steps.items():
            if step == old:
                self._steps[key] = new

    def evict_stale(self, before: int) -> bytearray:
        """Evict the entries that were last used before a step.

        Returns:
            Their keys, int64, the least recently used first.
        """
        stale = [self._drop(key) for key in list(self._rows) if self._steps[key] < before]
        self._evicted.extend(stale)
        return _bytes_of(stale)

    def entries(self) -> tuple[bytearray, bytearray, bytearray]:
        """Return the keys, their rows and the steps of their last use, int64 each, the least recently used first."""
        return (
            _bytes_of(self._rows),
            _bytes_of(self._rows.values()),
            _bytes_of(self._steps[key] for key in self._rows),
        )

    def ring(self) -> bytearray:
        """Return the evicted keys that are remembered, int64, the oldest eviction first."""
        return _bytes_of(self._evicted)

    def remembers(self, key: int) -> bool:
        """Tell whether a key was evicted and is remembered."""
        return key in self._evicted

    def remember(self, keys: array[int], count: int) -> None:
        """Remember evicted keys, [count], in the order of their eviction."""
        self._evicted.extend(keys[:count])

    def restore(self, keys: array[int], steps: array[int], count: int, rows: array[int]) -> None:
        """Add entries of a saved table, the least recently used first, where there is room for them.

        Args:
            keys: Their keys, [count], distinct and not held.
            steps: The steps of their last use, [count].
            count: Number of keys.
            rows: Receives their rows.

        Raises:
            ValueError: A key is held already.
        """
        for index in range(count):
            key = keys[index]
            if key in self._rows:
                raise ValueError("a key is there twice")
            rows[index] = self._rows[key] = self._free.pop()
            self._steps[key] = steps[index]

    def clear(self) -> None:
        """Drop every entry and forget every evicted key."""
        self._rows.clear()
        self._steps.clear()
        self._evicted.clear()
        self._free = list(range(self._capacity))[::-1]

    def _use(self, key: int, step: int) -> None:
        self._rows.move_to_end(key)
        self._steps[key] = step

    def _drop(self, key: int) -> int:
        if key in self._rows:  # of the surplus not all are held
            self._free.append(self._rows.pop(key))
            del self._steps[key]
        return key


TABLE: type[KeyTable] = KeyTable if core is None else core.KeyTable
"""The table that runs."""


def _bytes_of(numbers: Iterable[int]) -> bytearray:
    return bytearray(array("q", numbers))
