"""The points, stretches and ticks that a chart draws of a curve."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otel_train.report.curves import decimate, finite, merged, stretches, ticks

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
    curve = list(enumerate([0.0, 2.0, 3.0, 1.0, -1.0, -1.0, 2.0]))
    assert stretches(curve, 0, 2) == [(2, 2), (4, 5)]
    assert merged([(1, 5), (4, 8), (9, 9)]) == [(1, 8), (9, 9)]


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few(low: float, span: float) -> None:
    """An axis has one to seven ticks, all on it."""
    marks = ticks(low, low + span)
    assert 1 <= len(marks) <= 7
    assert all(low - 1e-6 * span - 1e-3 <= tick <= low + span + 1e-6 * span + 1e-3 for tick in marks)
