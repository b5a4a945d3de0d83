"""The bounded ring of recently evicted keys, by which a false eviction differs from a new stream."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from otel_train.ledger.ordered_keys import OrderedKeys
from otel_train.stable_hash import stable_hash
from otel_train.torch_modes import outside_modes


class EvictedKeys:
    """Keys in the order of their eviction; the oldest is dropped when the ring is full.

    Args:
        capacity: The most keys that are remembered.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._keys = OrderedKeys(capacity)

    def __len__(self) -> int:
        return len(self._keys)

    @outside_modes
    def __contains__(self, key: object) -> bool:
        """Tell whether a key (the `stable_hash`), or a stream id that is a string, is remembered."""
        if isinstance(key, str):
            key = stable_hash(key)
        return isinstance(key, int) and bool(self._keys.find(torch.tensor([key], dtype=torch.int64, device="cpu")) >= 0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.in_order().tolist())

    @outside_modes
    def in_order(self) -> torch.Tensor:
        """Return the keys, int64 [len(self)], the oldest eviction first."""
        return self._keys.keys[self._keys.in_order()]

    def add(self, keys: torch.Tensor) -> None:
        """Remember evicted keys; one that is there already moves to the new end.

        Args:
            keys: int64 [n], distinct, in the order of their eviction.
        """
        keys = keys[max(0, len(keys) - self.capacity) :]
        rows = self._keys.find(keys)
        self._keys.remove(rows[rows >= 0])
        excess = len(self) + len(keys) - self.capacity
        if excess > 0:
            self._keys.remove(self._keys.oldest(excess))
        self._keys.add(keys)

    def take(self, keys: torch.Tensor) -> torch.Tensor:
        """Forget those of the keys that are remembered.

        Args:
            keys: int64 [n], distinct: what one call writes.

        Returns:
            The reuse distance of each key that was there, int64 [m], in that order: the number of keys that were
            evicted later and are remembered before the call, plus 1. That many more entries would have held the key:
            the owner looks up all keys of a call before it makes room for any.
        """
        rows = self._keys.find(keys)
        rows = rows[rows >= 0]
        distances = self._keys.later(rows) + 1
        self._keys.remove(rows)
        return distances

    def clear(self) -> None:
        """Forget every key."""
        self._keys.clear()
