"""lhotse: a sampler that deals batches to the ranks, and one in each worker."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "lhotse", "iters"
ITERABLE = cases_of("iterable")
RIGHT = [*cases_of("sampler"), *(case for case in ITERABLE if not case.resumed), Case(variant="joined", workers=2)]
# What reads in workers has no state: all that it had read comes again.
AGAIN = [case for case in ITERABLE if case.resumed]
WRONG = Case(variant="wrong", workers=2)
TWICE = Case(variant="twice", workers=2)
CASES = [*RIGHT, *AGAIN, WRONG, TWICE]
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
    """A filter after the mix, which drops much of one source, is seen within the case's 640 picks."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


@pytest.mark.parametrize("case", [case.name for case in (*AGAIN, TWICE)])
def test_cuts_read_twice_are_named(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Cuts that come again are seen: by ranks and workers with the default seed and no shards, or after a resume."""
    assert "stream_mixing/repeats" in {finding.check for finding in outcomes[case].complaints()}
