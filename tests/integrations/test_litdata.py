"""litdata: both batching methods of `CombinedStreamingDataset`, samples that are tuples, all datasets to their end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "litdata", "streams"
RIGHT = [*cases_of("stratified"), *cases_of("pairs", "all", "persistent", workers=[2])]
WRONG = [Case(variant="wrong", workers=2), *cases_of("per_stream")]
CASES = [*RIGHT, *WRONG]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    unit = "batch" if case.variant == "per_stream" else "row"
    replace(outcomes[case.name], unit=unit).check_values()


@pytest.mark.parametrize("case", [case.name for case in RIGHT])
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A mix as configured is healthy, though all ranks and workers draw by one seed."""
    assert outcomes[case].complaints() == []


@pytest.mark.parametrize("case", [case.name for case in WRONG])
def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Weights that were forgotten are seen, and those that `per_stream` ignores when there are two datasets."""
    assert "mix drift" in {finding.check for finding in outcomes[case].complaints()}
