"""Composer's Trainer: its losses, what its callbacks log, and its evaluations, over an interrupt and a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import fmean

import pytest

from tests.integrations.support.case_loop import Case
from tests.integrations.support.loader_job import RANKS, Outcome
from tests.integrations.support.trainer_record import sessions

JOB, ENVIRONMENT = "composer_trainer", "composer"
CASES = [Case(variant="each", resumed=True)]
STEPS = 24
pytestmark = pytest.mark.integrations


@pytest.fixture
def outcome(outcomes: Mapping[str, Outcome]) -> Outcome:
    """Return what the one case has left."""
    return outcomes[CASES[0].name]


def expected_means(outcome: Outcome, kind: str) -> dict[int, float]:
    """Return the mean of the squared errors of all ranks, by step: each rank has as many."""
    ranks = [json.loads((outcome.folder / f"errors{rank}.json").read_text())[kind] for rank in range(RANKS)]
    return {int(step): fmean(fmean(rank[step]) for rank in ranks) for step in ranks[0]}


def test_losses_match_records(outcome: Outcome) -> None:
    """Each step has the mean of the ranks' own losses over its micro-batches."""
    losses = {step: values["train/loss"] for step, values in outcome.values.items()}
    assert losses == pytest.approx(expected_means(outcome, "train"), rel=1e-5)
    assert list(losses) == list(range(1, STEPS + 1))


def test_evaluations_match_records(outcome: Outcome) -> None:
    """An evaluation is recorded under the step that it came after, and ends none."""
    key = "metrics/eval/error"
    evaluated = {step: values[key] for step, values in outcome.values.items() if key in values}
    assert evaluated == pytest.approx(expected_means(outcome, "evaluation"), rel=1e-5)


def test_callbacks_values_are_there(outcome: Outcome) -> None:
    """What a callback logs at a batch's end belongs to that batch."""
    assert all(values["lr-SGD/group0"] == 0.01 for values in outcome.values.values())


def test_mix_matches_consumed(outcome: Outcome) -> None:
    """Each value of each step's mix is that computed from the rows that were trained on."""
    outcome.check_values()


def test_checkpoint_keeps_run(outcome: Outcome) -> None:
    """A trainer that loads a checkpoint goes on in its run."""
    first, second = sessions(outcome.folder)
    assert first.identity.run_id == second.identity.run_id
