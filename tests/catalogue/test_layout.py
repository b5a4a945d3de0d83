"""Values that follow from a vector of measurements."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import (
    ABSENT,
    LEDGER,
    MIXING,
    Layout,
    Metric,
    Reduction,
    divergence,
    rows,
)
from otel_train.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("counts", "targets", "expected"),
    [
        ([1, 1], [5, 5], 0.0),
        ([1, 0], [0, 1], 1.0),
        ([0, 0], [1, 1], 0.0),
        ([1, 1], [0, 0], 0.0),
        ([5], [2], 0.0),
        # A modality without a target: p = q on the other one.
        ([3, 0], [2, 0], 0.0),
        # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2
        ([3, 0], [2, 2], (math.log2(4 / 3) + (math.log2(2 / 3) + 1) / 2) / 2),
    ],
)
def test_divergence_of_worked_examples(counts: list[float], targets: list[float], expected: float) -> None:
    """0 for equal shares, 1 bit for disjoint ones, and one worked out by hand."""
    assert divergence(counts, targets) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_small_divergence_is_exact(gap: float) -> None:
    """Against the definition in 60 digits: a mix that is nearly right is not judged by rounding errors."""
    counts, targets = [1.0 + gap, 2.0, 3.0], [1.0, 2.0, 3.0]
    with localcontext(prec=60):
        p, q = ([Decimal(x) / sum(map(Decimal, part)) for x in part] for part in (counts, targets))
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        terms = [a * (a / m).ln() for part in (p, q) for a, m in zip(part, middle, strict=True)]
        exact = sum(terms, Decimal(0)) / 2 / Decimal(2).ln()
    assert divergence(counts, targets) == pytest.approx(float(exact), rel=1e-9, abs=0)


@given(*[st.lists(st.floats(0, 1e6), min_size=3, max_size=3)] * 2)
def test_divergence_is_symmetric(counts: list[float], targets: list[float]) -> None:
    """Counts and targets can change sides, and no rounding leads out of [0, 1]."""
    assert 0 <= divergence(counts, targets) <= 1
    assert divergence(counts, targets) == pytest.approx(divergence(targets, counts), abs=1e-12)


def test_values_follow_from_vector() -> None:
    """Sums, means, shares, maxima and their ranks are read from their indices."""
    layout = Layout(
        (rows.PICKS, rows.STALENESS_MEAN, rows.STALENESS_MAX, rows.MODALITY_SHARE, rows.EVICTIONS), ("a", "b")
    )
    # picks, age sum, active readers, decayed counts a and b, evictions
    values = layout.by_key([8.0, 6.0, 4.0, 1.0, 3.0, 5.0], [9.0, 4.0], [2.0, 1.0])
    assert values == {
        "stream_mixing/picks": 8.0,
        "stream_mixing/staleness_mean": 1.5,
        "stream_mixing/staleness_max": 9.0,
        "stream_mixing/staleness_max_rank": 2.0,
        "stream_mixing/modality_share/a": 0.25,
        "stream_mixing/modality_share/b": 0.75,
        "ledger/evictions": 5.0,
        "ledger/evictions_max": 4.0,
        "ledger/evictions_max_rank": 1.0,
    }


def test_unmeasured_values() -> None:
    """A catalogue key is there at every step; a user's mean of nothing is not made up."""
    layout = Layout((rows.STALENESS_MAX, rows.SWITCH_RATE, Metric("loss"), Metric("peak", Reduction.MAX)))
    assert layout.by_key([0.0] * layout.sums, [ABSENT] * layout.peaks, [0.0] * layout.peaks) == {
        "stream_mixing/staleness_max": 0.0,
        "stream_mixing/switch_rate": 0.0,
    }


def test_sums_give_their_peaks() -> None:
    """A ledger's maxima are candidates made of its own counts."""
    layout = Layout(MIXING + LEDGER, ("a",))
    sums = [0.0] * layout.sums
    sums[layout.offsets["ledger.fresh_writes"]] = 7.0
    assert layout.complete_peaks(sums, [3.0])[layout.peak_offsets["ledger.fresh_writes"]] == 7.0


def test_metric_given_twice_raises() -> None:
    """Two sources that measure the same would be added up silently."""
    with pytest.raises(ConfigurationError, match=r"'ledger.hits' is given by two sources"):
        Layout((rows.LEDGER_HITS, rows.LEDGER_HITS))
