"""The functions that give a metric's value from a record: of its sums, its peaks, the ranks of the peaks. Pure.

Each takes the indices that a layout has for it first. `column_values` has the same over many records at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from otel_train.catalogue.repeat_sketch import repeated_share

ABSENT = -math.inf
"""A peak of a rank that has no candidate."""
NOTHING = -0.0
"""A user's sum to which nobody added anything: only sums of itself give minus zero, so it comes through a reduction."""
MOST_COUNTED = 2.0**53
"""A count in an interval is less, or it would not be exact; a user's own may be of anything."""
LOWEST = -sys.float_info.max
"""Stands for a candidate of minus infinity, because that itself means that there is none."""

Histogram = tuple[float, ...]
"""A histogram's value: the count of each bucket, then the sum of the observations."""
Value = float | Histogram | None
"""A metric's value; None where no rank measured it."""
Vector = Sequence[float]


def divergence(counts: Vector, targets: Vector) -> float:
    """Return the Jensen-Shannon divergence, base 2, of the shares of `counts` against those of `targets`.

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991, "Divergence measures based on the Shannon entropy"). With
    m = (p + q) / 2 and d = (p - q) / (p + q) each modality adds m / 2 times (1 + d) ln(1 + d) + (1 - d) ln(1 - d)
    = ln(1 - d^2) + 2 d artanh(d), which is not negative: so nothing cancels, and a mix that is nearly right has a
    divergence that is right to 1e-9 of itself.

    Args:
        counts: One non-negative number for each modality.
        targets: The same for the target shares; both are normalised here.

    Returns:
        A value in [0, 1]; 0 when either side is all zero, NaN when a number is not finite.
    """
    total, target_total = total_of(counts), total_of(targets)
    if not math.isfinite(total + target_total):
        return math.nan
    if not (total > 0 and target_total > 0):
        return 0.0
    terms = []
    for count, target in zip(counts, targets, strict=True):
        p, q = count / total, target / target_total
        if p + q > 0:
            d = (p - q) / (p + q)
            spread = math.log1p(-d * d) + 2 * d * math.atanh(d) if abs(d) < 1 else 2 * math.log(2)
            terms.append((p + q) * spread)
    return min(1.0, max(0.0, math.fsum(terms) / (4 * math.log(2))))


def total_of(values: Vector) -> float:
    """Return the sum, NaN where there is none: damaged values must cost themselves, not who reads them."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond a float, or infinite ones of both signs
        return math.nan


def sum_at(index: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    """Return a sum as it is."""
    return float(sums[index])


def own_sum(index: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    """Return a user's own sum; None where nobody added anything to it."""
    value = float(sums[index])
    return value if value or math.copysign(1.0, value) > 0 else None


def ratio(top: int, bottom: int, empty: float | None, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    """Return a mean: one sum over another, or `empty` where that is 0."""
    return sums[top] / sums[bottom] if sums[bottom] else empty


def ratio_of_all(
    top: tuple[int, int], bottom: tuple[int, int], sums: Vector, _peaks: Vector, _ranks: Vector
) -> float | None:
    """Return the mean over what two runs of sums have together; None where it has no weight."""
    count = sum(sums[bottom[0] : bottom[1]])
    return sum(sums[top[0] : top[1]]) / count if count else None


def alike(count: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    """Return how many ranks draw alike, from the signs of their orders."""
    squares = [sign * sign for sign in sums[start:stop]]
    return math.fsum(squares) / len(squares) / sums[count] if sums[count] else 0.0


def root(top: int, bottom: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    """Return a norm: the root of a mean of squares; None where nobody gave one."""
    if not sums[bottom]:
        return None
    square = sums[top] / sums[bottom]
    return math.sqrt(square) if square >= 0 else math.nan


def share(index: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    """Return a sum's share of a run of them."""
    total = total_of(sums[start:stop])
    return sums[index] / total if total else 0.0


def divergence_of(counts: int, targets: int, width: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    """Return the divergence of a run of counts from one of targets."""
    return divergence(sums[counts : counts + width], sums[targets : targets + width])


def repeats(keys: int, repeated: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    """Return the share of repeated samples."""
    return repeated_share(sums[keys], sums[repeated], sums[start:stop])


def slice_of(start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> Histogram:
    """Return a histogram's buckets."""
    return tuple(sums[start:stop])


def peak(index: int, sign: float, absent: float | None, _sums: Vector, peaks: Vector, _ranks: Vector) -> float | None:
    """Return a maximum, or with the sign -1 a minimum; `absent` where no rank has a candidate."""
    if peaks[index] == ABSENT:
        return absent
    return sign * (-math.inf if peaks[index] == LOWEST else peaks[index])


def peak_rank(index: int, _sums: Vector, peaks: Vector, ranks: Vector) -> float | None:
    """Return the rank of a maximum; None where there is none."""
    return None if not ranks or peaks[index] == ABSENT else float(ranks[index])
