"""Keys in the order of their eviction, and how many were evicted after one of them."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
_BLOCK = 512
"""Positions that are counted together: as long as a count of bytes is cheaper than the rest of a call."""


class EvictionOrder(Generic[K]):
    """At most `capacity` keys, the one that was evicted first at the old end.

    An eviction takes the next position; `later` counts positions by blocks, so that it needs no walk along the keys.

    Args:
        capacity: The most keys that are remembered; 0 for none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """The most keys that are remembered."""
        self._positions: OrderedDict[K, int] = OrderedDict()
        self._taken: list[int] = []
        """Positions of the keys that left since the last eviction, in order."""
        self._number()

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: object) -> bool:
        return key in self._positions

    def __iter__(self) -> Iterator[K]:
        return iter(self._positions)

    def _number(self) -> None:
        """Give the keys the first positions, with as many positions after them."""
        count = len(self._positions)
        self._live = bytearray(2 * count + _BLOCK)
        self._live[:count] = b"\1" * count
        self._counts = [self._live.count(1, at, at + _BLOCK) for at in range(0, len(self._live), _BLOCK)]
        for position, key in enumerate(self._positions):
            self._positions[key] = position
        self._end = count

    def add(self, key: K) -> None:
        """Remember a key that is evicted: one that is there moves to the new end, else the oldest makes room."""
        self._taken.clear()
        if not self.capacity:
            return
        if key in self._positions:
            self._remove(key)
        elif len(self._positions) == self.capacity:
            self._remove(next(iter(self._positions)))
        if self._end == len(self._live):
            self._number()
        self._positions[key] = self._end
        self._live[self._end] = 1
        self._counts[self._end // _BLOCK] += 1
        self._end += 1

    def extend(self, keys: Iterable[K]) -> None:
        """Remember keys in the order of their eviction."""
        for key in keys:
            self.add(key)

    def take(self, key: K) -> int:
        """Forget a key that is there, and return its reuse distance.

        Returns:
            The number of keys that were evicted after it, plus 1: so many more entries would have held it. Those that
            left the ring since the last eviction, or since `settle`, count as if they were there: nothing has made room
            for them yet.
        """
        position = self._positions[key]
        block = position // _BLOCK
        distance = self._live.count(1, position, (block + 1) * _BLOCK) + sum(self._counts[block + 1 :])
        distance += len(self._taken) - bisect_right(self._taken, position)
        self._remove(key)
        insort(self._taken, position)
        return distance

    def settle(self) -> None:
        """Have distances count only what is remembered now."""
        self._taken.clear()

    def clear(self) -> None:
        """Forget every key."""
        self._positions.clear()
        self._taken.clear()
        self._number()

    def _remove(self, key: K) -> None:
        position = self._positions.pop(key)
        self._live[position] = 0
        self._counts[position // _BLOCK] -= 1
