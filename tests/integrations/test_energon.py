"""megatron-energon: a blend, with packing or without."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "energon", "energon"
RIGHT = cases_of("blend", "packed")
WRONG = Case(variant="wrong", workers=2)
CASES = [*RIGHT, WRONG]
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
    """A task encoder that skips much of one source is seen within the case's 640 picks."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}
