"""Choices made of bytes: what a target that needs more than bytes does with its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

WHOLE = (0, 1, 2, 63, 64, 2**31 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -1, -2, -(2**63), -(2**63) - 1, 10**30)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.1, math.nan, math.inf, -math.inf, 2.0**53, 5e-324, 1.7e308, -2147483648.0)


class Choices:
    """Reads bytes from the front; after the last one every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._data)

    def below(self, count: int) -> int:
        """Return a number below `count`, which is 256 at most."""
        if self._next >= len(self._data):
            return 0
        self._next += 1
        return self._data[self._next - 1] % count

    def one(self, items: Sequence[Item]) -> Item:
        """Return one of some items, at most 256."""
        return items[self.below(len(items))]

    def rarely(self) -> bool:
        """Return True for one byte of 16."""
        return self.below(16) == 15

    def bytes(self, count: int) -> bytes:
        """Return the next bytes, and zeros after the last one."""
        part = self._data[self._next : self._next + count]
        self._next += count
        return part.ljust(count, b"\0")

    def whole(self) -> int:
        """Return a whole number: mostly small, sometimes at a bound of a type, or any of 64 bits."""
        kind = self.below(8)
        if kind < 5:
            return self.below(24)
        return self.one(WHOLE) if kind < 7 else int.from_bytes(self.bytes(8), "little", signed=True)

    def int64(self) -> int:
        """Return a whole number that an int64 holds."""
        return (self.whole() + 2**63) % 2**64 - 2**63

    def real(self) -> float:
        """Return a float: mostly small and whole, sometimes one that is special."""
        return self.one(FLOATS) if self.below(4) == 0 else float(self.below(24))
