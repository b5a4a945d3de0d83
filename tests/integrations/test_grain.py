"""grain: `MapDataset.mix` and `IterDataset.mix`, with threads and worker processes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import SAVED_AFTER, Case, cases_of
from tests.integrations.support.loader_job import Outcome
from tests.integrations.support.payload import LATER

JOB, ENVIRONMENT = "grain", "iters"
# Its worker processes are spawned and import all: a case with them takes as long as all that have threads.
RIGHT = [*cases_of("map"), *cases_of("iter", workers=[0])]
WRONG = Case(variant="wrong")
CHANGED = Case(variant="sources", resumed=True)
CASES = [*RIGHT, WRONG, CHANGED]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in [*RIGHT, WRONG]])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    outcomes[case].check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy."""
    assert outcomes[case].complaints() == []


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """A filter after the mix, which drops much of one source, is seen within the case's 640 picks."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


def test_sources_change_at_resume(outcomes: Mapping[str, Outcome]) -> None:
    """A job goes on with a source less, one more, and one at another index: its state goes by name, as grain's does."""
    outcome = Outcome(outcomes[CHANGED.name].folder, later=LATER)
    assert {row[0] for rank in outcome.consumed for step in rank[SAVED_AFTER:] for row in step} == set(LATER)
    outcome.check_values()
    assert outcome.complaints() == []
