"""What is drawn of a curve."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otel_train.report.curves import decimate, finite, merged, stretches, ticks

values = st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=400)


@given(values, st.integers(1, 50))
def test_thinning_out_keeps_every_peak_within_its_size(column: list[float], columns: int) -> None:
    """The first, the last, the lowest and the highest point stay, and a column has at most four."""
    points = finite((float(step), value) for step, value in enumerate(column))
    drawn = [point for piece in decimate(points, 0, len(column) - 1, columns) for point in piece]
    assert len(drawn) <= 4 * columns
    assert drawn == sorted(set(drawn) & set(points))
    if points:
        assert {points[0], points[-1]} <= set(drawn)
        heights = [value for _, value in drawn]
        assert (min(heights), max(heights)) == (min(v for _, v in points), max(v for _, v in points))


def test_a_peak_of_one_step_in_a_hundred_thousand_is_drawn() -> None:
    """It is what the reader looks for."""
    points = [(float(step), 9.0 if step == 77_777 else 1.0) for step in range(100_000)]
    assert (77_777.0, 9.0) in [point for piece in decimate(points, 0, 99_999, 500) for point in piece]


def test_a_curve_has_gaps_where_steps_are_missing_and_none_where_it_is_only_sparse() -> None:
    """A scalar of every tenth step is one curve; one of every step that lacks some is two."""
    sparse = [(float(step), 1.0) for step in range(0, 100, 10)]
    broken = finite((float(step), math.nan if 40 <= step < 50 else 1.0) for step in range(100))
    assert len(decimate(sparse, 0, 99, 100)) == 1
    assert [piece[-1][0] for piece in decimate(broken, 0, 99, 100)] == [39, 99]


def test_stretches_are_where_a_curve_is_outside_both_ends() -> None:
    """Below counts as well as above; the ends themselves are healthy."""
    curve = list(enumerate([0.0, 2.0, 3.0, 1.0, -1.0, -1.0, 2.0]))
    assert stretches(curve, 0, 2) == [(2, 2), (4, 5)]
    assert merged([(1, 5), (4, 8), (9, 9)]) == [(1, 8), (9, 9)]


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    """An axis has some, and all on it."""
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span - 1e-3 <= tick <= low + span + 1e-6 * span + 1e-3 for tick in found)
