"""transformers' Trainer: the tags outlive its collator, its removal of columns, and its look ahead."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "transformers", "torch"
RIGHT = [
    *cases_of("columns"),
    Case(variant="stream", workers=2, resumed=True),
    Case(variant="accumulated", workers=2),
]
WRONG = Case(variant="wrong")
CASES = [*RIGHT, WRONG]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the rows that the model was trained on."""
    outcomes[case].check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy."""
    assert outcomes[case].complaints() == []


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """Probabilities other than those that are meant are seen."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}
