"""Draws that come again at once are told from those that are equal by chance."""

from __future__ import annotations

import pytest

from otel_train.read.history import MixInterval
from otel_train.read.repeated_draws import repetition
from tests.support.mixing_schemes import (
    Scheme,
    alike_workers,
    independent_rows,
    mixed_job,
    one_source_a_batch,
    stratified,
)

WEIGHTS = {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_alike_workers_are_counted(workers: int) -> None:
    """A draw counts once, however many workers made it."""
    history = mixed_job(alike_workers(workers), weights=WEIGHTS, steps=200)
    assert history.mix[0].rows == pytest.approx(workers, rel=0.25)


@pytest.mark.parametrize("real", [[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]])
@pytest.mark.parametrize("scheme", [independent_rows, stratified])
def test_other_equal_counts_stay(scheme: Scheme, real: list[float]) -> None:
    """Chance, a source that is drawn alone, and a mixer that deals by turns are no workers that draw alike."""
    for seed in range(5):
        history = mixed_job(scheme, weights=WEIGHTS, real=real, steps=60, seed=seed)
        assert {interval.rows for interval in history.mix} == {1.0}


def test_batches_of_one_source_repeat_by_chance() -> None:
    """The counts of such a batch are one draw, so the chance that the next one has them is a share."""
    history = mixed_job(one_source_a_batch, weights=WEIGHTS, steps=200, options={"unit": "batch"})
    assert {interval.rows for interval in history.mix} == {8.0}


def test_nothing_repeats_nothing() -> None:
    """No rank, no interval, or one of them tells nothing."""
    one, other = MixInterval(1, (2.0, 6.0), (0.25, 0.75)), MixInterval(2, (1.0, 0.0), (0.25, 0.75))
    jobs: list[list[list[MixInterval]]] = [[], [[]], [[one]], [[one, other]]]
    assert [repetition(job) for job in jobs] == [1.0] * 4
