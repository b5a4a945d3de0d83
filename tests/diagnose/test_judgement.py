"""The judgement of a run's curves."""

from __future__ import annotations

import math

import pytest

from otel_train.catalogue import HEADLINE_KEYS, HealthyRange, Per, Statistic, healthy_range
from otel_train.diagnose.judgement import judge, window_means


@pytest.mark.parametrize(
    ("wanted", "judged", "healthy"),
    [
        (HealthyRange(high=4, statistic=Statistic.MEAN), 4, True),
        (HealthyRange(high=4, statistic=Statistic.MAX), 6, False),
        (HealthyRange(low=3, statistic=Statistic.LAST), 2, False),
        (HealthyRange(high=2, per=Per.RANK), 2, True),
        (HealthyRange(high=0.9, per=Per.PICK), 1, False),
    ],
)
def test_the_ranges_statistic_is_divided_and_compared(wanted: HealthyRange, judged: float, healthy: bool) -> None:
    """A curve of 4, 6, 2 picks on two ranks is judged by the figure that the range names."""
    history = [dict.fromkeys(HEADLINE_KEYS, value) for value in (4.0, 6.0, 2.0)]
    first = judge(history, 2, lambda _: wanted)[0]
    assert (first.judged, first.healthy, bool(first.remedy)) == (judged, healthy, not healthy)


def test_a_maximum_is_judged_as_if_every_rank_were_like_the_worst() -> None:
    """One range serves a sum and its maximum."""
    history = [{**dict.fromkeys(HEADLINE_KEYS, 8.0), "ledger/evictions_max": 2.0, "ledger/evictions_max_rank": 3.0}]
    by_key = {each.key: each for each in judge(history, 4, lambda _: HealthyRange(high=8))}
    assert by_key["ledger/evictions_max"].judged == by_key["ledger/evictions"].judged == 8
    assert by_key["ledger/evictions"].worst_rank == 3


def test_a_maximum_that_says_nothing_bad_is_not_judged() -> None:
    """One owner may have all the fresh writes: with few streams the keys fall unevenly."""
    history = [{**dict.fromkeys(HEADLINE_KEYS, 8.0), "ledger/fresh_writes": 7.0, "ledger/fresh_writes_max": 7.0}]
    by_key = {each.key: each for each in judge(history, 4, healthy_range)}
    assert by_key["ledger/fresh_writes"].healthy
    assert by_key["ledger/fresh_writes_max"].healthy
    assert not by_key["ledger/evictions_max"].healthy


def test_a_metric_that_is_missing_is_unhealthy() -> None:
    """What never arrived is not taken for good."""
    judgement = judge([{}], 1, lambda _: HealthyRange())[0]
    assert not judgement.healthy
    assert math.isnan(judgement.last)


def test_windows_are_whole() -> None:
    """A mean is of `width` values that follow each other, and of fewer there is none."""
    assert window_means([1.0, 3.0, 5.0], 2) == [2.0, 4.0]
    assert window_means([1.0, 3.0], 1) == [1.0, 3.0]
    assert window_means([1.0], 2) == []
