"""webdataset: `RandomMix`, batches made by its own stages, shards of one source each, ranks that draw alike."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "webdataset", "streams"
RIGHT = [*cases_of("mix"), *cases_of("stages", "shards", workers=[2]), Case(variant="alike")]
WRONG = Case(variant="wrong", workers=2)
CASES = [*RIGHT, WRONG]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    outcomes[case].check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy, also where all ranks draw by one seed."""
    assert outcomes[case].complaints() == []


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """A mix whose probabilities were forgotten is seen against the mix that was meant."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}
