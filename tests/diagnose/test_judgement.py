"""The judgement of a run's curves."""

from __future__ import annotations

import math
from array import array

import pytest

from otel_train.catalogue import HEADLINE_KEYS, HealthyRange, Per, Statistic, healthy_range
from otel_train.diagnose.judgement import judge
from otel_train.read.curve_points import window_means


@pytest.mark.parametrize(
    ("bounds", "judged", "healthy"),
    [
        (HealthyRange(high=4, statistic=Statistic.MEAN), 4, True),
        (HealthyRange(high=4, statistic=Statistic.MAX), 6, False),
        (HealthyRange(low=3, statistic=Statistic.LAST), 2, False),
        (HealthyRange(high=2, per=Per.RANK), 2, True),
        (HealthyRange(high=0.9, per=Per.PICK), 1, False),
    ],
)
def test_statistic_is_compared(bounds: HealthyRange, judged: float, healthy: bool) -> None:
    """A curve of 4, 6, 2 picks on two ranks is judged by the statistic that the range names."""
    history = [dict.fromkeys(HEADLINE_KEYS, value) for value in (4.0, 6.0, 2.0)]
    first = judge(history, 2, lambda _: bounds)[0]
    assert (first.judged, first.healthy, bool(first.remedy)) == (judged, healthy, not healthy)


def test_maximum_is_scaled_up() -> None:
    """A maximum is judged as if every rank were like the worst, so that one range serves a sum and its maximum."""
    history = [{**dict.fromkeys(HEADLINE_KEYS, 8.0), "ledger/evictions_max": 2.0, "ledger/evictions_max_rank": 3.0}]
    by_key = {judgement.key: judgement for judgement in judge(history, 4, lambda _: HealthyRange(high=8))}
    assert by_key["ledger/evictions_max"].judged == by_key["ledger/evictions"].judged == 8
    assert by_key["ledger/evictions"].worst_rank == 3


def test_harmless_maximum_is_healthy() -> None:
    """One owner may have all the fresh writes: with few streams the keys fall unevenly."""
    history = [{**dict.fromkeys(HEADLINE_KEYS, 8.0), "ledger/fresh_writes": 7.0, "ledger/fresh_writes_max": 7.0}]
    by_key = {judgement.key: judgement for judgement in judge(history, 4, healthy_range)}
    assert by_key["ledger/fresh_writes"].healthy
    assert by_key["ledger/fresh_writes_max"].healthy
    assert not by_key["ledger/evictions_max"].healthy


def test_missing_metric_is_unhealthy() -> None:
    """A metric that never arrived does not count as healthy."""
    judgement = judge([{}], 1, lambda _: HealthyRange())[0]
    assert not judgement.healthy
    assert math.isnan(judgement.last)


def test_windows_are_whole() -> None:
    """A mean is of `width` values that follow each other, and of fewer there is none."""
    assert window_means([1.0, 3.0, 5.0], 2) == [2.0, 4.0]
    assert list(window_means(array("d", [1.0, 1e100, -1e100]), 2)) == [5e99, 0.0]
    assert window_means([1.0, 3.0], 1) == [1.0, 3.0]
    assert window_means([1.0], 2) == []
