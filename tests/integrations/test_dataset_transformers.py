"""Our own dataset under transformers' Trainer, which holds one batch ahead and knows the model's arguments only."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.dataset_rows import check_each_row_once, refusals
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "dataset", "torch"
WHOLE = [*cases_of("trainer"), Case(variant="trainer-accumulated", workers=2, resumed=True)]
SKIPPING = Case(variant="trainer-skipping", workers=2, resumed=True)
"""The Trainer reads as far as its checkpoint: it has the rows, but not the counts before."""
REFUSED = Case(variant="trainer-removing")
CASES = [*WHOLE, SKIPPING, REFUSED]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in WHOLE])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the rows that were trained on; the mix is healthy."""
    outcomes[case].check_values()
    assert outcomes[case].complaints() == []


@pytest.mark.parametrize("case", [case.name for case in (*WHOLE, SKIPPING)])
def test_each_row_comes_once(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A stream's rows come in order, none twice and none lost, and the saved position is the loop's."""
    check_each_row_once(outcomes[case])


def test_removed_picks_are_refused(outcomes: Mapping[str, Outcome]) -> None:
    """The Trainer's default is an error at the first batch, on every rank, that says what to set."""
    assert all("remove_unused_columns=False" in refusal for refusal in refusals(outcomes[REFUSED.name]))
