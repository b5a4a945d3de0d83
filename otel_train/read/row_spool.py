"""Rows of a run on disk, so that a run of a million steps takes the memory of a few of its columns."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile

BLOCK_ROWS = 1024
"""Rows of which a key's values lie together."""
ABSENT_BITS = 0x7FF8000000000AB5
"""Bits of a value that a row does not have: a NaN that no text gives."""
_ABSENT = struct.pack("<Q", ABSENT_BITS)
[ABSENT] = struct.unpack("<d", _ABSENT)
_NO_VALUES = array("d", _ABSENT * BLOCK_ROWS)
_IN_MEMORY = 16 * 2**20
"""Bytes of values that need no file."""


class RowSpool:
    """Rows by number, float64 by key; steps, times and the like are in memory, values in a file without a name.

    Raises:
        OSError: The temporary folder has no room.
    """

    def __init__(self) -> None:
        self.ordinals, self.steps, self.times_ns = array("q"), array("q"), array("q")
        self.attempts = array("d")
        """NaN where a row names none."""
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # it lives as long as the spool
        self._block: dict[str, array[float]] = {}
        self._blocks: dict[str, tuple[array[int], array[int]]] = {}
        """Of each key the first rows of the blocks that have it, and the offsets of these in the file."""
        self._end = 0

    def __len__(self) -> int:
        return len(self.steps)

    def add(
        self, step: int, time_ns: int, values: Mapping[str, float], *, ordinal: int = 0, attempt: float = math.nan
    ) -> None:
        """Add a row."""
        index = len(self.steps) % BLOCK_ROWS
        if index == 0:
            self._write_block()
        self.ordinals.append(ordinal)
        self.steps.append(step)
        self.times_ns.append(time_ns)
        self.attempts.append(attempt)
        for key, value in values.items():
            if key not in self._block:
                self._block[key] = _NO_VALUES[:]
            self._block[key][index] = value

    def _write_block(self) -> None:
        first = (len(self.steps) - 1) // BLOCK_ROWS * BLOCK_ROWS
        self._file.seek(self._end)
        for key, column in self._block.items():
            firsts, offsets = self._blocks.setdefault(key, (array("q"), array("q")))
            firsts.append(first)
            offsets.append(self._end)
            self._file.write(column.tobytes())
            self._end += 8 * BLOCK_ROWS
        self._block.clear()

    def keys(self) -> dict[str, None]:
        """Return the keys that any row has."""
        return dict.fromkeys([*self._blocks, *self._block])

    def column(self, key: str) -> array[float]:
        """Return a key's value of each row, with `ABSENT_BITS` where a row has none."""
        raw = bytearray(_ABSENT * len(self))
        for first, offset in zip(*self._blocks.get(key, ((), ())), strict=True):
            self._file.seek(offset)
            raw[8 * first : 8 * (first + BLOCK_ROWS)] = self._file.read(8 * BLOCK_ROWS)
        if (newest := self._block.get(key)) is not None:
            first = (len(self) - 1) // BLOCK_ROWS * BLOCK_ROWS
            raw[8 * first :] = newest[: len(self) - first].tobytes()
        column = array("d")
        column.frombytes(raw)
        return column
