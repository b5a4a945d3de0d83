"""Verdicts on right and wrong mixes of loaders that mix in one way or another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from otel_train.catalogue import HealthyRange, healthy_range, rows
from otel_train.diagnose.examine import examine
from otel_train.diagnose.finding import WRONG
from otel_train.diagnose.fitted_ranges import fitted_ranges
from otel_train.read.history import History, target_key
from tests.support.mixing_schemes import (
    Scheme,
    alike_ranks,
    in_groups,
    independent_rows,
    mixed_job,
    one_source_a_batch,
    one_source_a_global_batch,
    stratified,
)

TWO = {"code": 1.0, "prose": 3.0}
RARE = {"code": 1.0, "prose": 99.0}
MANY = {f"s{number}": 1.0 + number for number in range(30)}
ALIKE_MANY = dict.fromkeys(map(str, range(40)), 1.0)
BATCH, CLUSTER = {"unit": "batch"}, {"scope": "cluster"}


def wrong_checks(history: History) -> set[str]:
    """Return what is wrong with a run."""
    return {finding.check for finding in examine(history) if finding.severity in WRONG}


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("weights", [TWO, RARE, MANY, ALIKE_MANY], ids=["two", "rare", "many", "alike"])
@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        (independent_rows, {}),
        (alike_ranks, {}),
        (in_groups(2), {}),
        (one_source_a_batch, BATCH),
        (one_source_a_global_batch, BATCH),
        (one_source_a_global_batch, BATCH | CLUSTER),
        (stratified, CLUSTER),
    ],
    ids=["rows", "alike", "groups", "batches", "global_batches", "global_batches_cluster", "stratified"],
)
def test_right_mix_is_healthy(
    scheme: Scheme, options: Mapping[str, Any], weights: Mapping[str, float], ranks: int
) -> None:
    """Whatever is drawn at once, by whatever weights, after few steps or many."""
    for steps in (3, 80):
        history = mixed_job(scheme, weights=weights, ranks=ranks, steps=steps, options=options, seed=steps)
        assert wrong_checks(history) == set()


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("weights", [TWO, MANY], ids=["two", "many"])
@pytest.mark.parametrize(
    ("scheme", "options", "steps"),
    [
        (independent_rows, {}, 30),
        (alike_ranks, {}, 50),
        (one_source_a_batch, BATCH, 200),
        (stratified, CLUSTER, 30),
    ],
    ids=["rows", "alike", "batches", "stratified"],
)
def test_ignored_weights_are_named(
    scheme: Scheme, options: Mapping[str, Any], steps: int, weights: Mapping[str, float], ranks: int
) -> None:
    """A loader that ignores the weights is wrong after a few hundred draws, by the test of the mix and by its range."""
    real = [1 / len(weights)] * len(weights)
    history = mixed_job(scheme, weights=weights, real=real, ranks=ranks, steps=steps, options=options)
    assert {"mix drift", rows.MIX_DIVERGENCE.wandb_key} <= wrong_checks(history)
    history.mix = []  # as from wandb or Prometheus
    assert rows.MIX_DIVERGENCE.wandb_key in wrong_checks(history)


def test_missing_source_starves_cluster() -> None:
    """Ranks that hold the mix together are judged together: a source that none of them picks is starved."""
    history = mixed_job(stratified, weights=RARE, real=[0.0, 1.0], steps=100, options=CLUSTER)
    assert rows.STARVED_READERS.wandb_key in wrong_checks(history)
    [finding] = [finding for finding in examine(history) if finding.check == rows.STARVED_READERS.wandb_key]
    assert finding.summary == "no rank picks code, for longer than its weight explains"
    assert finding.since_step == history.mix[0].step


def test_few_of_the_ranks_tell_nothing() -> None:
    """Where the ranks hold the mix together, the picks of some of them are no mix."""
    history = mixed_job(stratified, weights=TWO, ranks=4, steps=50, options=CLUSTER)
    history.world_size = 8
    summaries = {finding.check: finding.summary for finding in examine(history)}
    assert summaries["mix drift"].endswith("the source has the picks of some")


def test_range_of_the_job_stays() -> None:
    """Only the catalogue's ranges are fitted, and the maximum keys are left alone."""
    history = mixed_job(one_source_a_batch, weights=TWO, options=BATCH)
    own = HealthyRange(high=0.5)
    key = rows.MIX_DIVERGENCE.wandb_key
    assert fitted_ranges(history, lambda _: own)(key) is own
    assert fitted_ranges(history)(key).high > healthy_range(key).high
    assert fitted_ranges(history)("ledger/evictions_max") == healthy_range("ledger/evictions_max")
    assert fitted_ranges(History("nowhere", "run"))(key) == healthy_range(key)


def test_starved_reader_is_out_of_range() -> None:
    """A fitted range does not explain the age of a reader that is never picked."""
    history = mixed_job(one_source_a_batch, weights=TWO, real=[0.0, 1.0], steps=300, options=BATCH)
    assert {rows.STALENESS_MAX.wandb_key, rows.STARVED_READERS.wandb_key} <= wrong_checks(history)


@pytest.mark.parametrize(("weights", "size"), [(TWO, 3000), ({"code": 1.0, "prose": 1e-300}, 8)])
def test_extreme_draws_have_a_range(weights: Mapping[str, float], size: int) -> None:
    """Thousands of rows in a step, and a weight that is next to nothing."""
    assert wrong_checks(mixed_job(independent_rows, weights=weights, rows=size, steps=4)) == set()


@pytest.mark.parametrize("value", [-1e299, 1e-320, 1e299, math.inf, math.nan])
@pytest.mark.parametrize("key", [rows.PICKS.wandb_key, target_key("code"), rows.ALIKE_RANKS.wandb_key])
def test_damaged_values_have_a_verdict(key: str, value: float) -> None:
    """Values that mean nothing cost themselves; nobody who looks gets an exception."""
    history = mixed_job(one_source_a_batch, weights=TWO, steps=5, options=BATCH)
    history.cluster.values[key] = [value] * 5
    history.order_groups = ()
    assert examine(history)


def test_untold_meter_is_explained() -> None:
    """Without any pick the verdict is that the meter was not told; nothing is made up of the order."""
    history = mixed_job(independent_rows, weights=TWO, rows=0, steps=30)
    findings = {finding.check: finding for finding in examine(history)}
    picks = findings[rows.PICKS.wandb_key]
    assert picks.cause == "the meter was told of no pick: picks in a DataLoader worker's copy of it reach nobody"
    assert "SourceMeter" in picks.remedy
    assert wrong_checks(history) == {rows.PICKS.wandb_key}


def test_lone_source_is_healthy() -> None:
    """A job of one source has one reader on each rank and never switches; nothing of that is wrong."""
    assert wrong_checks(mixed_job(independent_rows, weights={"only": 1.0}, steps=50)) == set()
    assert fitted_ranges(mixed_job(independent_rows, weights=TWO, steps=50))(rows.ACTIVE_READERS.wandb_key).low == 2
