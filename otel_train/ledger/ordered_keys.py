"""A bounded ordered set of keys with a row for each; the shard and the ring of evicted keys are made of it."""

from __future__ import annotations

import torch

from otel_train.ledger.index import KeyIndex
from otel_train.ledger.recency import Recency


class OrderedKeys:
    """At most `capacity` int64 keys in the order of their last use; each keeps one row while it is held.

    Args:
        capacity: The most keys that are held at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys = torch.zeros(capacity, dtype=torch.int64, device="cpu")
        """The key in each row that is in use."""
        self._index = KeyIndex(capacity)
        self._order = Recency(capacity)
        self._free = torch.arange(capacity, dtype=torch.int64, device="cpu")
        """Free rows, from index `len(self)` on."""

    def __len__(self) -> int:
        return len(self._index)

    def find(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the row of each of the keys, int64 [n]; -1 where a key is not held."""
        return self._index.lookup(keys)

    def add(self, keys: torch.Tensor) -> torch.Tensor:
        """Put new keys at the new end.

        Args:
            keys: int64 [n], distinct, none held, `len(self) + n <= capacity`.

        Returns:
            Their rows, int64 [n].
        """
        held = len(self)
        rows = self._free[held : held + len(keys)].clone()
        self._index.insert(keys, rows)
        self.keys[rows] = keys
        self._order.touch(rows)
        return rows

    def touch(self, rows: torch.Tensor) -> None:
        """Move rows, int64 [n] and distinct, to the new end, in their order."""
        self._order.touch(rows)

    def remove(self, rows: torch.Tensor) -> None:
        """Remove the keys in these rows, int64 [n] and distinct."""
        held = len(self)
        self._index.remove(self.keys[rows])
        self._order.drop(rows)
        self._free[held - len(rows) : held] = rows

    def oldest(self, count: int) -> torch.Tensor:
        """Return the rows of the `count` least recently used keys, int64 [count], oldest first."""
        return self._order.oldest(count)

    def later(self, rows: torch.Tensor) -> torch.Tensor:
        """Return for each of the rows, int64 [n], how many keys were used after its own."""
        return self._order.later(rows)

    def in_order(self) -> torch.Tensor:
        """Return the rows of all keys, int64 [held], oldest first."""
        return self._order.in_order()

    def clear(self) -> None:
        """Remove every key."""
        self._index.clear()
        self._order.clear()
        self._free = torch.arange(self.capacity, dtype=torch.int64, device="cpu")
