"""Hugging Face datasets under interleave_datasets: iterable, shuffled in a buffer, and map-style."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from otel_train.catalogue import rows
from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "hf_datasets", "torch"
# With workers datasets 5.2 can't load the state of a shuffle buffer.
SHUFFLED = [Case(variant="shuffled", resumed=True), Case(variant="shuffled", workers=2)]
RIGHT = [*cases_of("stream", "map"), *SHUFFLED]
WRONG = Case(variant="wrong", workers=2)
REREAD = Case(variant="reread", workers=2)
CASES = [*RIGHT, WRONG, REREAD]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    outcomes[case].check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy."""
    assert outcomes[case].complaints() == []


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """Probabilities other than the meter's weights are seen."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


def test_equal_orders_are_noted(outcomes: Mapping[str, Outcome]) -> None:
    """After split_dataset_by_node the ranks draw alike, which is told, unless each shuffles with a seed of its own."""
    assert outcomes["stream-2-straight"].notes() == {rows.ALIKE_RANKS.wandb_key}
    assert outcomes[REREAD.name].notes() == set()


def test_seed_of_rank_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """Ranks that shuffle with a seed of their own read some shards twice, which is seen."""
    assert {finding.check for finding in outcomes[REREAD.name].complaints()} == {rows.REPEATS.wandb_key}


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_no_sample_repeats(outcomes: Mapping[str, Outcome], case: str) -> None:
    """No sample is read twice, in workers, on the two ranks, or after a resume."""
    repeats = [row[rows.REPEATS.wandb_key] for row in outcomes[case].values.values()]
    assert max(repeats) <= 0.05  # across ranks it is an estimate
