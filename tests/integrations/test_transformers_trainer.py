"""transformers' Trainer with our callback: each step's values are those of the ranks' own record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_train.ring import RingReader, ring_files
from tests.integrations.support.case_loop import Case
from tests.integrations.support.loader_job import RANKS, Outcome, run_program
from tests.support.torchrun import ROOT

JOB, ENVIRONMENT = "transformers_trainer", "torch"
STEPS = 12
WEIGHTED = ("tokens", "own_tokens", "function")
"""Variants whose loss is a mean over all tokens; that of the others is one over batches."""
PLAIN = [Case(variant=variant) for variant in (*WEIGHTED, "averaging")]
RESUMED = Case(variant="tokens", resumed=True)
CASES = [*PLAIN, RESUMED]
pytestmark = pytest.mark.integrations


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """Return each rank's own record of a case."""
    return [json.loads((outcome.folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


def expected_loss(variant: str, batches: list[list[tuple[float, int]]]) -> float:
    """Return a step's loss from the sums and counts of each rank's micro-batches."""
    if variant in WEIGHTED:
        both = [batch for own in batches for batch in own]
        return sum(total for total, _ in both) / sum(count for _, count in both)
    means = [sum(total / count for total, count in own) / len(own) for own in batches]
    return sum(means) / len(means)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_is_each_step_own(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """Each step has the loss of its own micro-batches, over the tokens of all ranks."""
    outcome = outcomes[case.name]
    steps = [record["steps"] for record in records(outcome)]
    values = outcome.values
    assert list(values) == list(range(1, STEPS + 1))
    for step, row in values.items():
        expected = expected_loss(case.variant, [own[str(step)] for own in steps])
        assert row["train/loss"] == pytest.approx(expected, rel=1e-6), f"step {step}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logged_values_agree(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """The Trainer's own log has the same rate and norm, and the mean of the losses since the log before."""
    outcome = outcomes[case.name]
    values = outcome.values
    logs = [log for log in records(outcome)[0]["logs"] if "learning_rate" in log]
    assert len(logs) == STEPS // 4
    for log in logs:
        step = log["step"]
        row = values[step]
        assert row["train/learning_rate"] == pytest.approx(log["learning_rate"])
        assert row["train/grad_norm"] == pytest.approx(log["grad_norm"])
        assert row["train/epoch"] == pytest.approx(log["epoch"])
        if case.variant != "own_tokens":
            since = range(6 if case.resumed and step == 8 else step - 3, step + 1)  # its checkpoint is of step 5
            mean = sum(values[step]["train/loss"] for step in since) / len(since)
            assert mean == pytest.approx(log["loss"], rel=1e-5)


def test_resumed_run_goes_on(outcomes: Mapping[str, Outcome]) -> None:
    """Training that goes on from a checkpoint is another attempt of its run, and the first one tells what ended it."""
    outcome = outcomes[RESUMED.name]
    readers = [RingReader(path) for path in ring_files(outcome.folder / "rings")]
    first, second = sorted((reader for reader in readers if not reader.identity.rank), key=lambda r: r.identity.attempt)
    assert first.identity.run_id == second.identity.run_id
    assert min(record.step for record in second.read(0, 10**6)[0]) == 6
    assert first.error == "FloatingPointError"


def test_example_records_each_step(tmp_path: Path) -> None:
    """The example that a user would copy has a loss for each step, and an evaluation."""
    variables = {"OTEL_TRAIN_RING_DIR": str(tmp_path / "rings"), "ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path)}
    path = ROOT / "examples" / "trainers" / "hf_trainer.py"
    run_program(ENVIRONMENT, path, seconds=200, **variables)
    losses = [row["train/loss"] for row in Outcome(tmp_path).values.values() if "train/loss" in row]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    assert len(path.read_text().splitlines()) < 60
