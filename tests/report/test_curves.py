"""The points, stretches and ticks that a chart draws of a curve."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from otel_train.read.curve_points import Points
from otel_train.report.curves import bins, decimate, finite, is_dense, merged, stretches, ticks

values = st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=400)


@given(values, st.integers(1, 50))
def test_decimation_keeps_peaks(column: list[float], columns: int) -> None:
    """The first, the last, the lowest and the highest point stay, and a column has at most four."""
    points = finite((float(step), value) for step, value in enumerate(column))
    drawn = [point for piece in decimate(points, 0, len(column) - 1, columns) for point in piece]
    assert len(drawn) <= 4 * columns
    assert drawn == sorted(set(drawn) & set(points))
    if points:
        assert {points[0], points[-1]} <= set(drawn)
        heights = [value for _, value in drawn]
        assert (min(heights), max(heights)) == (min(v for _, v in points), max(v for _, v in points))


@example([0.76] * 3, 1)  # whose mean is larger as it is computed
@example([0.94] * 5, 1)  # smaller
@given(values, st.integers(1, 50))
def test_bins_bound_their_points(column: list[float], columns: int) -> None:
    """Each column has at most one bin, with the lowest and the highest of its points, and a mean between them."""
    points = finite((float(step), value) for step, value in enumerate(column))
    summed = [one for piece in bins(points, 0, len(column) - 1, columns) for one in piece]
    assert len(summed) <= columns
    assert all(one.lowest <= one.mean <= one.highest for one in summed)
    for step, value in points:
        assert any(one.lowest <= value <= one.highest for one in summed)
        assert min(abs(one.step - step) for one in summed) <= len(column) / columns / 2 + 1e-9
    heights = {height for one in summed for height in (one.lowest, one.highest)}
    assert heights <= {value for _, value in points}


def test_bins_have_mean() -> None:
    """The mean is that of all points in a column, and pieces are those of a line."""
    points = [(float(step), float(step % 10 == 3)) for step in range(100) if not 40 <= step < 50]
    pieces = bins(points, 0, 99, 10)
    assert [[one.step for one in piece] for piece in pieces] == [
        [4.5, 14.5, 24.5, 34.5],
        [54.5, 64.5, 74.5, 84.5, 94.5],
    ]
    assert {one[1:] for piece in pieces for one in piece} == {(0.0, 0.1, 1.0)}


def test_few_points_are_lines() -> None:
    """A curve is a line up to two points a column, where it is: the columns without points do not count."""
    points = [(float(step), 1.0) for step in range(100)]
    assert [is_dense(points, 0, 99, columns) for columns in (50, 49)] == [False, True]
    assert is_dense(points, 0, 999, 400)
    assert not is_dense([], 0, 9, 10)


def test_single_peak_is_drawn() -> None:
    """A peak of one step in a hundred thousand is drawn, as it is what a reader searches for."""
    points = [(float(step), 9.0 if step == 77_777 else 1.0) for step in range(100_000)]
    assert (77_777.0, 9.0) in [point for piece in decimate(points, 0, 99_999, 500) for point in piece]


def test_missing_steps_are_gaps() -> None:
    """A scalar of every tenth step is one curve; one of every step that lacks some is two."""
    sparse = [(float(step), 1.0) for step in range(0, 100, 10)]
    broken = finite((float(step), math.nan if 40 <= step < 50 else 1.0) for step in range(100))
    assert len(decimate(sparse, 0, 99, 100)) == 1
    assert [piece[-1][0] for piece in decimate(broken, 0, 99, 100)] == [39, 99]


def test_stretches_lie_outside_bounds() -> None:
    """Values below count as well as those above; the bounds themselves are healthy."""
    curve = Points(range(7), [0.0, 2.0, 3.0, 1.0, -1.0, -1.0, 2.0])
    assert stretches(curve, 0, 2) == [(2, 2), (4, 5)]
    assert merged([(1, 5), (4, 8), (9, 9)]) == [(1, 8), (9, 9)]


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few(low: float, span: float) -> None:
    """An axis has one to seven ticks, all on it."""
    marks = ticks(low, low + span)
    assert 1 <= len(marks) <= 7
    assert all(low - 1e-6 * span - 1e-3 <= tick <= low + span + 1e-6 * span + 1e-3 for tick in marks)
