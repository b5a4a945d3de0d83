"""Follow the order of a rank's picks by a running hash, so that ranks whose picks come in one order can be told.

Each rank adds a few signs of its hash to the sum over the ranks. Ranks with equal orders have equal signs, those of
others are independent: so the mean square of the sums is the sum over all orders of the square of the number of ranks
that have it (Alon, Matias, Szegedy 1996, "The space complexity of approximating the frequency moments": its F2).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import torch

from otel_train.catalogue.rows import ORDER_SIGNS
from otel_train.splitmix import INCREMENT, signed
from otel_train.torch_modes import outside_modes

MOST_PICKS = 8192
"""Picks of an interval that are hashed, the newest: a meter that nobody drains must not grow."""
_BITS = ORDER_SIGNS.size
_SIGNS = [tuple(1.0 if bits >> bit & 1 else -1.0 for bit in range(_BITS)) for bits in range(1 << _BITS)]
_NONE = (0.0,) * (_BITS + 1)
_ODD = 0x9E3779B1
"""2**32 divided by the golden ratio: as a factor it carries each bit of the hash, which is linear, into upper ones."""


class PickOrder:
    """Running hash of the order of all picks since the session began."""

    def __init__(self) -> None:
        self.recent: deque[int] = deque(maxlen=MOST_PICKS)
        """Picks of the interval, as the index of each one's modality: the meter appends to it."""
        self._hash = 0

    def extend(self, indices: Sequence[int] | torch.Tensor) -> None:
        """Take many picks at once.

        Args:
            indices: The index of each pick's modality in order, int64 [n] on the CPU where it is a tensor.
        """
        if isinstance(indices, torch.Tensor):
            self.recent.append(_hashed(indices))
        else:
            self.recent.extend(indices)

    def drain(self) -> tuple[float, ...]:
        """End the interval.

        Returns:
            float [1 + signs]: 1 and the signs of the hash, each 1 or -1; zeros where the interval has no picks.
        """
        recent = self.recent
        if not recent:
            return _NONE
        try:
            picks = bytes(recent)
        except ValueError:  # an index above 255, a number of rows, a hash of a batch
            picks = array("q", recent).tobytes()
        recent.clear()
        self._hash = crc32(picks, self._hash)
        return 1.0, *_SIGNS[(self._hash * _ODD & 0xFFFFFFFF) >> (32 - _BITS)]


@outside_modes
def _hashed(indices: torch.Tensor) -> int:
    """Return a hash of 64 bits, signed: each index times an odd number that its position decides, added up."""
    return int(torch.dot(indices + 1, _factors(len(indices))))


@lru_cache(maxsize=8)
def _factors(picks: int) -> torch.Tensor:
    """Return an odd number for each position, int64 [picks]; a loader's batches have one size, or a few."""
    positions = torch.arange(1, 2 * picks, 2, dtype=torch.int64, device="cpu") * signed(INCREMENT)
    return positions ^ (positions >> 29)
