"""Write arrays that the core holds, which keep their size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


def overwrite(numbers: array[float] | array[int], values: Iterable[float]) -> None:
    """Set all elements of an array; there must be as many values."""
    numbers[:] = array(numbers.typecode, values)  # type: ignore[arg-type]
