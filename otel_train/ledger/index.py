"""Look up many keys at once."""

from __future__ import annotations

import torch

ABSENT = -1
"""The position of a key that is not held."""


class KeyIndex:
    """Positions of at most `capacity` int64 keys.

    A dict: for the batches of a training step, a few hundred keys, it takes a quarter of the time in which a hash table
    in tensors is looked up, and a twentieth for what comes and goes. (For tens of thousands of keys at once, among
    hundreds of thousands, such a table would be twice as fast; the states of so many take longer still.)

    Args:
        capacity: The most keys that are held at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._positions: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def lookup(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the position of each key.

        Args:
            keys: int64 [n], in any number and order, duplicates too.

        Returns:
            int64 [n]; -1 where a key is not held.
        """
        get = self._positions.get
        return torch.tensor([get(key, ABSENT) for key in keys.tolist()], dtype=torch.int64, device="cpu")

    def insert(self, keys: torch.Tensor, positions: torch.Tensor) -> None:
        """Add keys that are not held.

        Args:
            keys: int64 [n], distinct.
            positions: int64 [n], distinct and not negative.
        """
        self._positions.update(zip(keys.tolist(), positions.tolist(), strict=True))
        assert len(self._positions) <= self.capacity

    def remove(self, keys: torch.Tensor) -> None:
        """Remove keys.

        Args:
            keys: int64 [n], distinct, all of them held.
        """
        for key in keys.tolist():
            del self._positions[key]

    def clear(self) -> None:
        """Remove every key."""
        self._positions.clear()
