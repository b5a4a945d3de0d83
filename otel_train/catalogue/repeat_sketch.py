"""The sketch from whose SUM over the ranks follows the share of sample keys that are there more than once. Pure.

A rank keeps a window of the keys that it trained on, and counts repeats in it. What the ranks' windows have in common
must follow from sums, so each rank also sends LEVELS * CELLS numbers. A key, 64 random bits, has a cell, the same on
every rank: of level l with a probability of 3/4 * 4**-l (the last level has the rest), one of the CELLS of its level.
To it a rank adds 2**41 + x * P + x**2 % P, with x the key modulo a prime P, once for each key that its window holds. Of
a cell's sum the high part counts keys, and the low part divided by that count has the form of one key's again if they
all are copies of one; two other keys pass for copies with a probability of about 6e-5. This is one-sparse recovery
(Ganguly 2007, "Counting distinct items over update streams"; Cormode, Firmani 2014, "A unifying framework for
l0-sampling algorithms"), with the cells of an invertible Bloom lookup table (Goodrich, Mitzenmacher 2011).

Whether a key has a cell of its own doesn't depend on how many ranks hold it. So the keys that have one, some six
whatever the number of keys, up to six million, are an even sample of the distinct keys, and they have as many copies a
key as all. The share is exact where no rank holds another's key and where all ranks hold the same. In between, where
a share s of the keys are second copies, its standard deviation is below sqrt(s / 6), and its mean a tenth too small;
where few keys are on many ranks it is smaller still, and seldom large. The mean over a run is as much more exact as the
run has windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = 10
CELLS = 8
"""Cells of each level."""
WIDTH = LEVELS * CELLS
"""Numbers of a sketch."""
LEVEL_BITS = 2
"""Bits of a key that choose among a level and the next ones."""
_PRIME = 23167
"""The largest prime with PRIME**2 < 2**29."""
_UNIT = 2**41
"""Up to 4096 copies are counted: their low parts are below 4096 * PRIME**2 <= UNIT."""
LEFT_OUT = 2.0**53
"""Stands in the first cell of a level that a rank leaves out: no sum of 4096 codes is as large."""
_FEWEST_CLEAR = 3
"""Cells of a level that must be empty or of one key: in fuller levels the keys are too many, and chance rules."""


def code_of(key: int) -> tuple[int, int]:
    """Return the index of a key's cell, and what is added to it.

    Args:
        key: 64 random bits, signed or not. The level is half the number of zeros at the low end.
    """
    zeros = (key & -key).bit_length() - 1 if key else 64
    level = min(zeros // LEVEL_BITS, LEVELS - 1)
    x = (key >> 24) % _PRIME
    return level * CELLS + (key >> 21) % CELLS, _UNIT + x * _PRIME + x * x % _PRIME


def repeated_share(keys: float, repeated: float, cells: Sequence[float]) -> float:
    """Return the share of the sample keys that are repeats: 1 less the distinct keys over all of them.

    Args:
        keys: Keys in the windows of the ranks.
        repeated: Those that were in the same rank's window before.
        cells: The sketch, [LEVELS * CELLS]: levels one after the other.

    Returns:
        A value in [0, 1]; 0 without keys, NaN when a number is not finite.
    """
    if not (math.isfinite(keys) and math.isfinite(repeated) and all(map(math.isfinite, cells))):
        return math.nan
    if keys <= 0:
        return 0.0
    distinct, copies = _lone_keys(cells)
    return min(1.0, max(0.0, 1 - (1 - repeated / keys) * (distinct / copies if copies else 1.0)))


def _lone_keys(cells: Sequence[float]) -> tuple[int, int]:
    """Return the number of keys that have a cell of their own, and of their copies."""
    distinct = copies = 0
    for level in reversed(range(LEVELS)):  # the fewest keys first
        counts = [_copies(cell) for cell in cells[level * CELLS : (level + 1) * CELLS]]
        clear = [count for count in counts if count is not None]
        if cells[level * CELLS] >= LEFT_OUT or len(clear) < _FEWEST_CLEAR:
            break
        distinct += sum(count > 0 for count in clear)
        copies += sum(clear)
    return distinct, copies


def _copies(cell: float) -> int | None:
    """Return how many copies of one key a cell holds, None where it holds several keys."""
    if not cell:
        return 0
    count, low = divmod(int(cell), _UNIT)
    if count <= 0:  # damaged
        return None
    code, rest = divmod(low, count)
    x, check = divmod(code, _PRIME)
    return count if not rest and x * x % _PRIME == check else None
