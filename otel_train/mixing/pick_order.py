"""Follow the order of a rank's picks by a running hash, so that ranks whose picks come in one order can be told.

Each rank adds a few signs of its hash to the sum over the ranks. Ranks with equal orders have equal signs, those of
others are independent: so the mean square of the sums is the sum over all orders of the square of the number of ranks
that have it (Alon, Matias, Szegedy 1996, "The space complexity of approximating the frequency moments": its F2).

The hash of picks p1 ... pn is a polynomial modulo 2**64, `INCREMENT`**n * start + (p1 + 1) * `INCREMENT`**(n - 1) + ...
+ (pn + 1), which a pick extends by one product and one sum; the finaliser of SplitMix64 mixes it before signs are read.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import torch

from otel_train.catalogue.rows import ORDER_SIGNS
from otel_train.splitmix import INCREMENT, mix, signed
from otel_train.torch_modes import outside_modes

MASK = 2**64 - 1
_BITS = ORDER_SIGNS.size
_SIGNS = [(1.0, *(1.0 if bits >> bit & 1 else -1.0 for bit in range(_BITS))) for bits in range(1 << _BITS)]
NO_SIGNS = (0.0,) * (_BITS + 1)
"""Signs of an interval without picks: none."""


def extended(order: int, value: int) -> int:
    """Return the hash after one more pick, or after whatever else is part of the order.

    Args:
        order: The hash so far, 64 bits.
        value: Index of the pick's modality; any number.
    """
    return (order * INCREMENT + value + 1) & MASK


def signs_of(order: int) -> tuple[float, ...]:
    """Return 1 and the signs of a hash, each 1 or -1: float [1 + signs]."""
    return _SIGNS[mix(order) >> (64 - _BITS)]


@outside_modes
def value_of_batch(indices: Sequence[int] | torch.Tensor) -> int:
    """Return a batch's part in the order.

    Args:
        indices: The index of each pick's modality in order, int64 [n] on the CPU where it is a tensor.
    """
    if isinstance(indices, torch.Tensor):
        return int(torch.dot(indices + 1, _factors(len(indices))))
    return crc32(array("q", indices).tobytes())


@lru_cache(maxsize=8)
def _factors(picks: int) -> torch.Tensor:
    """Return an odd number for each position, int64 [picks]; a loader's batches have one size, or a few."""
    positions = torch.arange(1, 2 * picks, 2, dtype=torch.int64, device="cpu") * signed(INCREMENT)
    return positions ^ (positions >> 29)
