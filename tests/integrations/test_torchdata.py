"""torchdata: nodes and StatefulDataLoader, resumed by their own states."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "torchdata", "torch"
RIGHT = cases_of("nodes", "map", "stream")
WRONG = Case(variant="wrong", workers=2)
DOUBLED = Case(variant="doubled", workers=2)
CASES = [*RIGHT, WRONG, DOUBLED]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    outcomes[case].check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy."""
    assert outcomes[case].complaints() == []


@pytest.mark.parametrize("case", [case.name for case in RIGHT if case.resumed])
def test_resume_loses_no_row(outcomes: Mapping[str, Outcome], case: str) -> None:
    """The loops consume the same rows whether they were resumed or not."""
    assert outcomes[case].consumed == outcomes[case.replace("resumed", "straight")].consumed


def test_source_begins_again(outcomes: Mapping[str, Outcome]) -> None:
    """A source of nodes that is read anew counts as a restart, after a resume too."""
    restarts = [row["stream_mixing/restarts"] for row in outcomes["nodes-2-resumed"].values.values()]
    assert sum(restarts) > sum(restarts[:17]) > 0


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """A sampler with other weights than the meter is seen."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


def test_doubled_rows_are_named(outcomes: Mapping[str, Outcome]) -> None:
    """Workers that read the same rows have a right mix, and repeats."""
    assert "stream_mixing/repeats" in {finding.check for finding in outcomes[DOUBLED.name].complaints()}
