"""Our own dataset under the loaders of others: every row once, and counted when it is trained on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.dataset_rows import check_each_row_once, keys_of_ranks, refusals
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "dataset", "torch"
WHOLE = [
    *cases_of("stateful", "accelerate"),
    *(Case(variant="stateful-snapshots", workers=workers, resumed=True) for workers in (0, 2)),
    Case(variant="accelerate-split", workers=2, resumed=True),
    Case(variant="accelerate-stateful", resumed=True),
]
"""Cases in which the dataset goes on from its own state, besides the loader's."""
ALONE = [Case(variant=f"stateful-{how}", workers=2, resumed=True) for how in ("alone", "snapshots-alone")]
"""Cases in which the loader alone goes on: it has the rows, but not the counts before."""
REFUSED = Case(variant="accelerate-dispatched")
COMPLETING, DROPPING = (Case(variant=f"accelerate-{how}", workers=2) for how in ("completing", "dropping"))
"""Cases in which each rank's 90 rows run out within a batch of 8."""
CASES = [*WHOLE, *ALONE, REFUSED, COMPLETING, DROPPING]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in WHOLE])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is that computed from the rows that were trained on; the mix is healthy."""
    outcomes[case].check_values()
    assert outcomes[case].complaints() == []


@pytest.mark.parametrize("case", [case.name for case in (*WHOLE, *ALONE)])
def test_each_row_comes_once(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A stream's rows come in order, none twice and none lost, and the saved position is the loop's."""
    check_each_row_once(outcomes[case])


def test_dispatched_rows_are_refused(outcomes: Mapping[str, Outcome]) -> None:
    """Accelerate's default is an error at the first batch, on every rank, that says what to set."""
    assert all("dispatch_batches=False" in refusal for refusal in refusals(outcomes[REFUSED.name]))


@pytest.mark.parametrize(("case", "rows", "trained"), [(COMPLETING.name, 90, 96), (DROPPING.name, 88, 88)])
def test_last_batch_counts_rows_once(outcomes: Mapping[str, Outcome], case: str, rows: int, trained: int) -> None:
    """A last batch that accelerate completes by rows it has already counts these once; one that it drops, never."""
    for keys, index in keys_of_ranks(outcomes[case]):
        assert (index, len(set(keys)), len(keys)) == (rows, rows, trained)
