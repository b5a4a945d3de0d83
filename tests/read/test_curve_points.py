"""Arithmetic on columns: the core's and its twin's results are the same."""

from __future__ import annotations

import math
import statistics
from array import array

from hypothesis import given
from hypothesis import strategies as st

from otel_train.read.column_values import rank_weights, row_sums
from otel_train.read.curve_points import Points, are_within, edge, exact_sum, median_of, span_of

numbers = st.lists(st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e300, -1e300, math.inf])), max_size=9)


@given(numbers, st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(0, 9), st.integers(-1, 9))
def test_columns_equal_lists(values: list[float], low: float, high: float, begin: int, end: int) -> None:
    """Whatever is in a column, the core computes what Python does of a list; a list is never given to it."""
    column = array("d", values)
    assert repr(span_of(column)) == repr(span_of(values))
    assert are_within(column, 1e300) == are_within(values, 1e300)
    assert repr(list(Points(column, column).scaled(0.1).values)) == repr([0.1 * value for value in values])
    if math.isfinite(2 * sum(map(abs, values))):
        assert repr(exact_sum(column)) == repr(math.fsum(values))
        assert [repr(total) for total in row_sums([column, column[::-1]]) or ()] == [
            repr(math.fsum(row)) for row in zip(values, reversed(values), strict=True)
        ]
    ordered = array("d", [value for value in values if not math.isnan(value)])
    assert not ordered or repr(median_of(ordered) + 0.0) == repr(statistics.median(ordered) + 0.0)
    bounds = (begin, min(end, len(values))) if begin < len(values) else (len(values) - 1, -1)
    for inside in (False, True):
        assert edge(column, low, high, *bounds, inside=inside) == edge(values, low, high, *bounds, inside=inside)


@given(st.lists(st.tuples(st.floats(), st.sampled_from([0.0, 1.0, 1.0, 7.0, math.nan, 1e6])), max_size=9))
def test_weights_of_ranks_equal_lists(pairs: list[tuple[float, float]]) -> None:
    """The core adds up each rank's values as Python does, and names the ranks in the same order."""
    values, ranks = [value for value, _ in pairs], [rank for _, rank in pairs]
    assert repr(rank_weights(array("d", values), array("d", ranks))) == repr(rank_weights(values, ranks))
