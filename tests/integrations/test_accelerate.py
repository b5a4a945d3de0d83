"""accelerate: loaders that `prepare` has wrapped, in each way in which it deals batches out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "accelerate", "torch"
RIGHT = [
    *cases_of("shard", "dispatch", "stream"),
    *cases_of("stream_shard", "tuples", "collated", "split", "stateful", workers=(2,)),
]
WRONG = Case(variant="wrong")
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
    """A sampler with other weights than those that are meant is seen, also where process 0 reads for all."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


def test_filled_batches_count(outcomes: Mapping[str, Outcome]) -> None:
    """Each rank has eight picks in every step, the rows included that fill up the last batch of a pass."""
    assert [row["stream_mixing/picks"] for row in outcomes["shard-2-straight"].values.values()] == [16.0] * 40
