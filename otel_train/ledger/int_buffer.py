"""Numbers that both the key table and torch work on: one array, with a tensor that shares its memory."""

from __future__ import annotations

from array import array
from typing import Any

import torch

_LEAST = 64
"""Room of a new buffer."""


class IntBuffer:
    """Int64 numbers of one call, [count], in an array that grows with the largest call and is used again.

    The tensor is for operations that are done when they return, and goes to no user: the next call writes the array.
    """

    def __init__(self) -> None:
        self.numbers = array("q", bytes(8 * _LEAST))
        """Array of at least `count` numbers."""
        self.count = 0
        """Number of those that the call has."""
        self._tensor: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: its tensor must share the memory of its own array."""
        return {**vars(self), "_tensor": None}

    def resize(self, count: int) -> array[int]:
        """Make room for a call of so many numbers, and return the array; what was in it is lost where it grows."""
        if count != self.count:
            self._tensor = None
            self.count = count
        if count > len(self.numbers):
            self.numbers = array("q", bytes(8 * max(count, 2 * len(self.numbers))))
        return self.numbers

    @property
    def tensor(self) -> torch.Tensor:
        """Tensor of the numbers, int64 [count] on the CPU, in the same memory."""
        if self._tensor is None:
            self._tensor = self.part(0, self.count)
        return self._tensor

    def part(self, first: int, end: int) -> torch.Tensor:
        """Return numbers `first` ... `end` - 1 as a tensor in the same memory."""
        if first == end:
            return torch.empty(0, dtype=torch.int64, device="cpu")
        return torch.frombuffer(self.numbers, dtype=torch.int64, count=end - first, offset=8 * first)

    def fill(self, values: torch.Tensor) -> None:
        """Take the values of an int64 tensor [n], on any device."""
        self.resize(len(values))
        if self.count:
            self.tensor.copy_(values)


def tensor_of(numbers: bytearray) -> torch.Tensor:
    """Return bytes of int64 as a tensor of its own, on the CPU."""
    if not numbers:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.frombuffer(numbers, dtype=torch.int64)
