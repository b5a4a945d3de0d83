"""How often the drift test errs, and how soon it detects, over the ways in which loaders mix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from otel_train.diagnose.drift import ALPHA, MixTest, test_mix
from otel_train.read.mix import Mix
from tests.support.mixing_schemes import (
    Scheme,
    alike_ranks,
    alike_workers,
    in_groups,
    independent_rows,
    mixed_job,
    one_source_a_batch,
    stratified,
)

WEIGHTS = {"code": 1.0, "prose": 3.0}
SCHEMES = pytest.mark.parametrize(
    ("scheme", "options", "draws"),
    [
        (independent_rows, {}, 1.0),
        (alike_ranks, {}, 1.0),
        (in_groups(2), {}, 1.0),
        (alike_workers(2), {}, 1 / 2),
        (alike_workers(8), {}, 1 / 8),
        (one_source_a_batch, {"unit": "batch"}, 1 / 8),
        (stratified, {"scope": "cluster"}, 1.0),
    ],
    ids=["rows", "alike", "pairs", "two_workers", "eight_workers", "batches", "stratified"],
)


def result_of(scheme: Scheme, options: Mapping[str, Any], seed: int, **job: Any) -> MixTest:
    """Return the test of a job."""
    history = mixed_job(scheme, weights=WEIGHTS, options=options, seed=seed, **job)
    return test_mix(Mix.of(history.mix).drawn())


@SCHEMES
@pytest.mark.parametrize(("ranks", "runs"), [(2, 40), (8, 16), (64, 2)])
def test_right_mix_is_no_drift(scheme: Scheme, options: Mapping[str, Any], draws: float, ranks: int, runs: int) -> None:
    """No run reaches the bound of an alarm, and a chance of c is reached by c of the runs at most."""
    del draws
    chances = [result_of(scheme, options, seed, ranks=ranks, steps=40).chance for seed in range(runs)]
    assert min(chances) > ALPHA
    for chance in (0.3, 0.1, 0.03):
        reached = sum(own <= chance for own in chances) / runs
        assert reached <= chance + 3 * math.sqrt(chance * (1 - chance) / runs)


@SCHEMES
@pytest.mark.parametrize(("ranks", "runs"), [(2, 10), (8, 5), (64, 1)])
def test_wrong_mix_is_detected(scheme: Scheme, options: Mapping[str, Any], draws: float, ranks: int, runs: int) -> None:
    """Weights 1:3 that are ignored are certain within 300 draws of what is drawn once, in each run."""
    steps = math.ceil(300 / draws / 8) if scheme is alike_ranks else math.ceil(600 / draws / ranks / 8) + 4
    for seed in range(runs):
        test = result_of(scheme, options, seed, ranks=ranks, steps=steps, real=[0.5, 0.5])
        assert test.chance < ALPHA
