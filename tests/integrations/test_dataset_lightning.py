"""Our own dataset under Lightning, which holds one batch ahead."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.case_loop import cases_of
from tests.integrations.support.dataset_rows import check_each_row_once
from tests.integrations.support.loader_job import Outcome

JOB, ENVIRONMENT = "dataset", "torch"
CASES = cases_of("lightning")
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each row comes once, and each value of each step is that computed from those that were trained on."""
    check_each_row_once(outcomes[case])
    outcomes[case].check_values()
    assert outcomes[case].complaints() == []
