"""mosaicml-streaming: each batching method, samples that are tuples, a collate function that drops tags.

All of its jobs stand in this file, whose tests run one after the other: two that begin at once may find the same names
of the host's shared memory free, share them, and wait for each other's workers for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integrations.support.case_loop import Case, cases_of
from tests.integrations.support.loader_example import check_example
from tests.integrations.support.loader_job import Outcome
from tests.support.torchrun import ROOT

JOB = ENVIRONMENT = "mosaic"
UNITS = {"stratified": "row", "per_stream": "batch", "device_per_stream": "batch"}
"""Unit of a draw, by batching method."""
RIGHT = [*cases_of("random"), *cases_of("pairs", "collated", *UNITS, workers=[2])]
WRONG = Case(variant="wrong", workers=2)
CASES = [*RIGHT, WRONG]
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values_match_consumed(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """Each value of each step is that computed from the payload that the loops consumed."""
    scope = "cluster" if case.variant == "stratified" else "rank"
    replace(outcomes[case.name], unit=UNITS.get(case.variant, "row"), scope=scope).check_values()


@pytest.mark.parametrize("variant", ["random", "pairs", "collated", *UNITS])
def test_resumed_reads_same_rows(outcomes: Mapping[str, Outcome], variant: str) -> None:
    """The loader's saved position is right with tags too, whatever the samples are: it counts rows by their batch."""
    assert outcomes[f"{variant}-2-resumed"].consumed == outcomes[f"{variant}-2-straight"].consumed


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_right_mix_is_healthy(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """A mix as configured is healthy, drawn by row, by batch, or exact over the batches of all ranks only."""
    assert outcomes[case.name].complaints() == []


def test_wrong_mix_is_named(outcomes: Mapping[str, Outcome]) -> None:
    """Streams of equal proportions are seen against the mix that was meant."""
    assert "mix drift" in {finding.check for finding in outcomes[WRONG.name].complaints()}


def test_example_has_right_mix(tmp_path: Path) -> None:
    """Every step of the example has picks of both ranks, each stream has tokens, and the mix is healthy."""
    check_example(ROOT / "examples" / "loaders" / "mosaic_streams.py", tmp_path)
