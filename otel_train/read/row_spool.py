"""Rows of a run on disk, so that a run of a million steps takes the memory of a few of its columns."""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from tempfile import SpooledTemporaryFile

from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.native import core

BLOCK_ROWS = 1024
"""Rows of which a key's values lie together; native/history.c has the same."""
MOST_KNOWN = 512
"""Keys that the native core looks for."""
MOST = 2.0**62
"""Bound of steps and of times in nanoseconds; what is beyond means nothing."""
ABSENT_BITS = 0x7FF8000000000AB5
"""Bits of a value that a row does not have: a NaN that no text gives."""
_ABSENT = struct.pack("<Q", ABSENT_BITS)
[ABSENT] = struct.unpack("<d", _ABSENT)
_NO_VALUES = array("d", _ABSENT * BLOCK_ROWS)
_NO_BYTES = _NO_VALUES.tobytes()
_FIRST_KEYS = ("_step", "_timestamp", rows.STEP.wandb_key, ATTEMPT_KEY, "_runtime")
"""Those that the core reads heads of rows by, and one that each row has and nobody reads."""
_SLOTS = 2048
"""Places of the core's table of keys."""
_NAME_BYTES = 256
"""Room for the name of a key, on average."""
_JOINED_BYTES = 2**18
"""Room for a record that lies in several chunks."""
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
        self._end = 0
        self._blocks: dict[str, tuple[array[int], array[int]]] = {}
        """Of each key the first rows of the blocks that have it, and the offsets of these in the file."""
        self._known: dict[str, int] = {}
        """Index of each key that the core looks for."""
        self._names, self._joined = bytearray(MOST_KNOWN * _NAME_BYTES), bytearray(_JOINED_BYTES)
        self._ends, self._table = array("q", [0]) * MOST_KNOWN, array("q", [0]) * _SLOTS
        self._heads = array("q", [0]) * (3 * BLOCK_ROWS)
        """Ordinals, steps and times of the newest block's rows, those that the core has read."""
        self._values = _NO_VALUES * MOST_KNOWN
        """Values of the newest block's rows, of the keys that are known."""
        self._others: dict[str, array[float]] = {}
        """Values of the newest block's rows, of other keys."""
        self.know(_FIRST_KEYS)

    def __len__(self) -> int:
        return len(self.steps)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def add(
        self, step: int, time_ns: int, values: Mapping[str, float], *, ordinal: int = 0, attempt: float = math.nan
    ) -> None:
        """Add a row."""
        index = self._next_index()
        self.ordinals.append(ordinal)
        self.steps.append(step)
        self.times_ns.append(time_ns)
        self.attempts.append(attempt)
        for key, value in values.items():
            if key in self._known:
                self._values[self._known[key] * BLOCK_ROWS + index] = value
                continue
            if key not in self._others:
                self._others[key] = _NO_VALUES[:]
            self._others[key][index] = value

    def know(self, keys: Iterable[str]) -> None:
        """Have the core look for some more keys, whether they have numbers or not."""
        if core is None:
            return
        for key in keys:
            if key in self._known or key in self._others or len(self._known) == MOST_KNOWN:
                continue
            name, begin = key.encode(errors="surrogatepass"), self._ends[len(self._known) - 1]
            if begin + len(name) <= len(self._names):
                self._names[begin : begin + len(name)] = name
                self._ends[len(self._known)] = begin + len(name)
                self._known[key] = len(self._known)
                core.index_key(self._names, self._ends, len(self._known), self._table)

    def take(self, data: bytes | memoryview, position: int, before: float = MOST) -> int:
        """Add the rows of wandb's records, as far as the core can read them.

        Args:
            data: Blocks of a file.
            position: Where the next chunk begins.
            before: Rows of this step and later ones are left out.

        Returns:
            The position after what was read.
        """
        while core is not None:
            index = self._next_index()
            keys = (self._names, self._ends, len(self._known), self._table)
            position, end, known = core.history_rows(
                *keys, self._values, self._heads, index, before, self._joined, data, position
            )
            for key in range(len(self._known), known):
                self._known[self._names[self._ends[key - 1] : self._ends[key]].decode()] = key
            self._add_heads(index, end)
            if end < BLOCK_ROWS:
                break
        return position

    def _add_heads(self, begin: int, end: int) -> None:
        for number, column in enumerate((self.ordinals, self.steps, self.times_ns)):
            column.extend(self._heads[number * BLOCK_ROWS + begin : number * BLOCK_ROWS + end])
        first = self._known[ATTEMPT_KEY] * BLOCK_ROWS
        self.attempts.extend(self._values[first + begin : first + end])

    def _next_index(self) -> int:
        """Return the index of the next row in its block; write the block before where that is full."""
        index = len(self) % BLOCK_ROWS
        if index == 0 and len(self) > 0:
            self._file.seek(self._end)
            for key, values in self._newest():
                firsts, offsets = self._blocks.setdefault(key, (array("q"), array("q")))
                firsts.append(len(self) - BLOCK_ROWS)
                offsets.append(self._end)
                self._file.write(values)
                self._end += len(values)
            self._others.clear()
            self._values[: len(self._known) * BLOCK_ROWS] = _NO_VALUES * len(self._known)
        return index

    def _newest(self) -> Iterator[tuple[str, bytes]]:
        """Yield keys of the newest block and their values, of those that have any."""
        for key, index in self._known.items():
            values = self._values[index * BLOCK_ROWS : (index + 1) * BLOCK_ROWS].tobytes()
            if values != _NO_BYTES and not key.startswith("_"):
                yield key, values
        for key, column in self._others.items():
            yield key, column.tobytes()

    def keys(self) -> dict[str, None]:
        """Return the keys that any row has."""
        return dict.fromkeys([*self._blocks, *(key for key, _ in self._newest())])

    def column(self, key: str) -> array[float]:
        """Return a key's value of each row, with `ABSENT_BITS` where a row has none."""
        raw = bytearray(_ABSENT * len(self))
        for first, offset in zip(*self._blocks.get(key, ((), ())), strict=True):
            self._file.seek(offset)
            raw[8 * first : 8 * (first + BLOCK_ROWS)] = self._file.read(8 * BLOCK_ROWS)
        first, newest = self._unwritten(key)
        if newest is not None:
            raw[8 * first :] = newest[: len(self) - first].tobytes()
        column = array("d")
        column.frombytes(raw)
        return column

    def part(self, key: str, first: int) -> array[float]:
        """Return a key's value of each row of the block that begins at a row, with `ABSENT_BITS` where one has none."""
        firsts, offsets = self._blocks.get(key, (array("q"), array("q")))
        at = bisect_left(firsts, first)
        newest, values = self._unwritten(key)
        part = _NO_VALUES[:]
        if at < len(firsts) and firsts[at] == first:
            self._file.seek(offsets[at])
            part = array("d", self._file.read(8 * BLOCK_ROWS))
        elif first == newest and values is not None:
            part = values
        return part[: len(self) - first]

    def _unwritten(self, key: str) -> tuple[int, array[float] | None]:
        """Return the first row of the newest block, and a key's values there; None where they are in the file."""
        first = max(0, len(self) - 1) // BLOCK_ROWS * BLOCK_ROWS
        # A full block may be written already, and its values gone from memory.
        if self._blocks.get(key) and self._blocks[key][0][-1] == first:
            return first, None
        index = self._known.get(key, -1)
        if index < 0:
            return first, self._others.get(key)
        return first, self._values[index * BLOCK_ROWS : (index + 1) * BLOCK_ROWS]


def time_of(seconds: float) -> int:
    """Return a time in nanoseconds, within what an int64 holds."""
    return round(max(-MOST, min(seconds * 1e9, MOST)))
