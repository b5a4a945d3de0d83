"""Look up many keys at once: a hash table in tensors, without tombstones and without rebuilds."""

from __future__ import annotations

import torch

WIDTH = 16
"""Places in a bucket: one bucket of keys is two cache lines."""
ABSENT = -1
"""The position of a key that is not held."""
_INSERT_CHUNK = 1 << 15


class KeyIndex:
    """Positions of at most `capacity` int64 keys, on the CPU.

    The table is buckets of 16 places, at most half full. A key stands in its home bucket or in one of the next
    `reach - 1`, where `reach` is the largest number of buckets that an insert has ever needed; a lookup compares all
    places of those. So a removal may simply empty its place, and a key that is held is always found: each insert put
    it within the reach of its time, and the reach only grows. With well mixed keys it is 1 or 2.

    Args:
        capacity: The most keys that are held at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Buckets * WIDTH >= 2 * capacity, and a power of two.
        buckets = 1 << ((2 * capacity - 1) // WIDTH).bit_length()
        self._mask = buckets - 1
        self._keys = torch.zeros(buckets, WIDTH, dtype=torch.int64)
        self._positions = torch.full((buckets, WIDTH), ABSENT, dtype=torch.int64)
        self._held = 0
        self._set_reach(1)

    def __len__(self) -> int:
        return self._held

    def _set_reach(self, reach: int) -> None:
        self._reach = reach
        self._steps = torch.arange(reach)

    def lookup(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the position of each key.

        Args:
            keys: int64 [n], in any number and order, duplicates too.

        Returns:
            int64 [n]; -1 where a key is not held.
        """
        buckets = self._buckets(keys)
        # An empty place may still show a key that left; its position is -1 and loses to that of the held one.
        matches = self._window(self._keys, buckets) == keys[:, None]
        return torch.where(matches, self._window(self._positions, buckets), ABSENT).amax(1)

    def insert(self, keys: torch.Tensor, positions: torch.Tensor) -> None:
        """Add keys that are not held.

        Args:
            keys: int64 [n], distinct.
            positions: int64 [n], distinct and not negative.
        """
        self._held += len(keys)
        assert self._held <= self.capacity
        for begin in range(0, len(keys), _INSERT_CHUNK):
            chunk = slice(begin, begin + _INSERT_CHUNK)
            self._insert(keys[chunk], positions[chunk])

    def _insert(self, keys: torch.Tensor, positions: torch.Tensor) -> None:
        while len(keys):
            buckets = self._buckets(keys)
            free = self._window(self._positions, buckets) < 0
            number = free.cumsum(1)
            if not bool(number[:, -1].all()):
                self._set_reach(self._reach + 1)
                continue
            # The nth key of a home bucket takes the nth free place there: each that took the first would take a round.
            mine = free & (number == _turns(buckets[:, 0])[:, None])
            has = mine.any(1)
            places, wanted = self._places(buckets, mine.byte().argmax(1))[has], positions[has]
            # Several may want the same place where buckets overlap: all write, one stays, the others look again.
            self._positions.view(-1)[places] = wanted
            won = self._positions.view(-1)[places] == wanted
            self._keys.view(-1)[places[won]] = keys[has][won]
            has[has.clone()] = won
            keys, positions = keys[~has], positions[~has]

    def remove(self, keys: torch.Tensor) -> None:
        """Remove keys.

        Args:
            keys: int64 [n], distinct, all of them held.
        """
        buckets = self._buckets(keys)
        matches = self._window(self._keys, buckets) == keys[:, None]
        matches &= self._window(self._positions, buckets) >= 0
        places = self._places(buckets, matches.byte().argmax(1))
        assert bool(matches.any(1).all())
        self._positions.view(-1)[places] = ABSENT
        self._held -= len(keys)

    def clear(self) -> None:
        """Remove every key."""
        self._positions.fill_(ABSENT)
        self._held = 0
        self._set_reach(1)

    def _window(self, table: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        """Return what the table has in all places of each row of buckets, int64 [n, reach * WIDTH]."""
        return table.index_select(0, buckets.view(-1)).view(len(buckets), self._reach * WIDTH)

    def _places(self, buckets: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
        """Return the place in the flat table of one place of each row of buckets, int64 [n]."""
        return buckets.gather(1, (within // WIDTH)[:, None])[:, 0] * WIDTH + within % WIDTH

    def _buckets(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the buckets that each key may stand in, int64 [n, reach].

        The home is taken from the upper half of the key: on its owner, the lower bits of every key are alike when the
        world size is a power of two.
        """
        return (((keys >> 32) & self._mask)[:, None] + self._steps) & self._mask


def _turns(buckets: torch.Tensor) -> torch.Tensor:
    """Return for each of the buckets, int64 [n], the how manieth of its kind it is: 1 for the first."""
    ordered, places = buckets.sort(stable=True)
    count = torch.arange(len(buckets))
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    turns = torch.empty_like(ordered)
    turns[places] = count + 1 - torch.where(begins, count, 0).cummax(0).values
    return turns
