"""The values of one series over many records at once; to the last bit those of `computations`, which is the reference.

Columns are float64 [records]. A value that nobody measured is NaN.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from otel_train.catalogue import Layout, computations
from otel_train.native import core

Columns = Callable[[range], list["array[float]"]]
"""Gives the columns at so many indices of the records' values."""
MOST_SOURCES = 64
"""Sources that the core takes."""
_MOST_RANKS = 1 << 12
"""Ranks that the core adds up values by."""


def series_values(layout: Layout, index: int, read: Columns, *, with_ranks: bool) -> array[float]:
    """Compute one series of a layout.

    Args:
        layout: The layout of the records' values.
        index: The index in its `series`, of one whose value is a number.
        read: Gives the columns of the values at some indices, sums first; they are changed.
        with_ranks: Whether the records are the cluster's, which name the ranks of the peaks.

    Returns:
        float64 [records].
    """
    computation = layout.computation(index)
    peaks = layout.sums
    ranks = peaks + layout.peaks if with_ranks else None
    return _OF[computation.func](read, peaks, ranks, *computation.args)


def _one(read: Columns, index: int) -> array[float]:
    return read(range(index, index + 1))[0]


def _numbers(values: Iterable[float | None]) -> array[float]:
    return array("d", [math.nan if value is None else value for value in values])


def _sum_at(read: Columns, _peaks: int, _ranks: int | None, index: int) -> array[float]:
    return _one(read, index)


def _own_sum(read: Columns, _peaks: int, _ranks: int | None, index: int) -> array[float]:
    column, sign = _one(read, index), math.copysign
    if core is not None:
        core.own_sums(column)
        return column
    return array("d", [value if value or sign(1.0, value) > 0 else math.nan for value in column])


def _ratio(read: Columns, _peaks: int, _ranks: int | None, top: int, bottom: int, empty: float | None) -> array[float]:
    none = math.nan if empty is None else empty
    above, below = _one(read, top), _one(read, bottom)
    return _quotients(above, below, none)


def _quotients(above: array[float], below: array[float], none: float) -> array[float]:
    """Divide in place; `none` where nothing is below."""
    if core is not None:
        core.divide(above, below, none)
        return above
    return array("d", [one / other if other else none for one, other in zip(above, below, strict=True)])


def _ratio_of_all(
    read: Columns, _peaks: int, _ranks: int | None, top: tuple[int, int], bottom: tuple[int, int]
) -> array[float]:
    pairs = zip(_rows(read, *top), _rows(read, *bottom), strict=True)
    return array("d", [sum(above) / count if (count := sum(below)) else math.nan for above, below in pairs])


def _rows(read: Columns, start: int, stop: int) -> Iterable[tuple[float, ...]]:
    return zip(*read(range(start, stop)), strict=True)


def _root(read: Columns, _peaks: int, _ranks: int | None, top: int, bottom: int) -> array[float]:
    return _numbers(
        computations.root(0, 1, pair, (), ()) for pair in zip(_one(read, top), _one(read, bottom), strict=True)
    )


def _share(read: Columns, _peaks: int, _ranks: int | None, index: int, start: int, stop: int) -> array[float]:
    columns = read(range(start, stop))
    totals = row_sums(columns)
    if totals is None:
        totals = array("d", [computations.total_of(row) for row in zip(*columns, strict=True)])
    return _quotients(columns[index - start], totals, 0.0)


def row_sums(columns: Sequence[array[float]]) -> array[float] | None:
    """Return the correctly rounded sum of each row, float64 [records]; None where one is not finite."""
    if core is not None and 1 <= len(columns) <= MOST_SOURCES:
        out = array("d", [0.0]) * len(columns[0])
        return out if core.row_sums(len(out), len(columns), beside(columns), out) else None
    try:
        sums = array("d", map(math.fsum, zip(*columns, strict=True)))
    except (OverflowError, ValueError):
        return None
    return sums if all(map(math.isfinite, sums)) else None


def _divergence_of(
    read: Columns, _peaks: int, _ranks: int | None, counts: int, targets: int, width: int
) -> array[float]:
    indices = range(counts, counts + width), range(targets, targets + width)
    if core is None or not 1 <= width <= MOST_SOURCES:
        rows = zip(*(zip(*read(of_one), strict=True) for of_one in indices), strict=True)
        return array("d", [computations.divergence(*row) for row in rows])
    counted, aimed = (_read_beside(read, of_one) for of_one in indices)
    out = array("d", [0.0]) * (len(counted) // width)
    core.divergences(len(out), width, counted, aimed, out)
    return out


def _read_beside(read: Columns, indices: range) -> array[float]:
    """Return columns as `beside` does, with each let go of as soon as it is copied."""
    columns, joined = read(indices)[::-1], array("d")
    while columns:
        joined.frombytes(memoryview(columns.pop()).cast("B"))
    return joined


def beside(columns: Iterable[array[float]]) -> array[float]:
    """Return columns one after the other, float64 [columns * records], as the core takes them."""
    joined = array("d")
    for column in columns:
        joined.frombytes(memoryview(column).cast("B"))
    return joined


def rank_weights(values: Sequence[float], ranks: Sequence[float]) -> dict[int, float]:
    """Return the sum of the values that each rank has, in the order of the ranks' first ones; NaNs are left out."""
    if core is not None and isinstance(values, array) and isinstance(ranks, array):
        weights, firsts = array("d", bytes(8 * _MOST_RANKS)), array("q", [-1]) * _MOST_RANKS
        if core.rank_weights(values, ranks, weights, firsts):
            named = [rank for rank, first in enumerate(firsts) if first >= 0]
            return {rank: weights[rank] for rank in sorted(named, key=firsts.__getitem__)}
    sums: dict[int, float] = {}
    for value, rank in zip(values, ranks, strict=True):
        if not math.isnan(value) and not math.isnan(rank):
            sums[int(rank)] = sums.get(int(rank), 0.0) + value
    return sums


def _peak(read: Columns, peaks: int, _ranks: int | None, index: int, sign: float, absent: float | None) -> array[float]:
    none = math.nan if absent is None else absent
    if core is not None:
        column = _one(read, peaks + index)
        core.peaks(column, sign, none)
        return column
    lowest = sign * -math.inf
    return array(
        "d",
        [
            none if value == computations.ABSENT else lowest if value == computations.LOWEST else sign * value
            for value in _one(read, peaks + index)
        ],
    )


def _peak_rank(read: Columns, peaks: int, ranks: int | None, index: int) -> array[float]:
    column = _one(read, peaks + index)
    if ranks is None:
        return array("d", [math.nan]) * len(column)
    named = _one(read, ranks + index)
    if core is not None:
        core.name_peaks(column, named)
        return named
    pairs = zip(column, named, strict=True)
    return array("d", [math.nan if value == computations.ABSENT else rank for value, rank in pairs])


def _alike(read: Columns, _peaks: int, _ranks: int | None, count: int, start: int, stop: int) -> array[float]:
    counts = _one(read, count)
    if core is not None and 1 <= stop - start <= MOST_SOURCES:
        signs = _read_beside(read, range(start, stop))
        out = array("d", [0.0]) * len(counts)
        core.alikes(len(counts), stop - start, counts, signs, out)
        return out
    rows = zip(counts, *read(range(start, stop)), strict=True)
    return array("d", [computations.alike(0, 1, 1 + stop - start, row, (), ()) for row in rows])


def _repeats(
    read: Columns, _peaks: int, _ranks: int | None, keys: int, repeated: int, start: int, stop: int
) -> array[float]:
    rows = zip(_one(read, keys), _one(read, repeated), *read(range(start, stop)), strict=True)
    return array("d", [computations.repeats(0, 1, 2, 2 + stop - start, row, (), ()) for row in rows])


_OF: dict[Callable[..., Any], Callable[..., array[float]]] = {
    computations.sum_at: _sum_at,
    computations.own_sum: _own_sum,
    computations.ratio: _ratio,
    computations.ratio_of_all: _ratio_of_all,
    computations.root: _root,
    computations.share: _share,
    computations.divergence_of: _divergence_of,
    computations.alike: _alike,
    computations.repeats: _repeats,
    computations.peak: _peak,
    computations.peak_rank: _peak_rank,
}
