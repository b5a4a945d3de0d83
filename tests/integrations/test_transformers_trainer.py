"""transformers' Trainer with our callback: each step's values are those of the ranks' own record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import read_history, read_run
from otel_train.ring import is_served
from tests.integrations.support.case_loop import TERMINATED, Case
from tests.integrations.support.loader_job import RANKS, Outcome, run_program
from tests.integrations.support.terminated_rings import check_terminated
from tests.integrations.support.trainer_record import Means, recorded_means, sessions
from tests.integrations.support.wandb_rows import check_wandb
from tests.support.bridge_processes import BridgeProcess
from tests.support.torchrun import ROOT
from tests.support.waiting import wait_until

JOB, ENVIRONMENT = "transformers_trainer", "torch"
STEPS = 12
WEIGHTED = ("tokens", "own_tokens", "function", TERMINATED)
"""Variants whose loss is a mean over all tokens; that of the others is one over batches."""
PLAIN = [Case(variant=variant) for variant in ("tokens", "own_tokens", "function", "averaging", "subclass")]
RESUMED = Case(variant="tokens", resumed=True)
EVALUATED = Case(variant="subclass")
FITS = Case(variant="fits")
KILLED = Case(variant=TERMINATED)
TRAINED = [*PLAIN, RESUMED]
CASES = [KILLED, *TRAINED, FITS]
pytestmark = pytest.mark.integrations


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """Return each rank's own record of a case."""
    return [json.loads((outcome.folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


def expected_losses(variant: str, outcome: Outcome, fit: int) -> dict[int, float]:
    """Return the loss of each step of a fit from the sums and counts of each rank's micro-batches."""
    fits = [record["fits"][fit] for record in records(outcome)]
    return {int(step): expected_loss(variant, [own[step] for own in fits]) for step in fits[0]}


def expected_loss(variant: str, batches: list[list[tuple[float, int]]]) -> float:
    """Return a step's loss."""
    if variant in WEIGHTED:
        both = [batch for own in batches for batch in own]
        return sum(total for total, _ in both) / sum(count for _, count in both)
    means = [sum(total / count for total, count in own) / len(own) for own in batches]
    return sum(means) / len(means)


def losses_of(values: Means) -> dict[int, float]:
    """Return the loss of each step that has one."""
    return {step: row["train/loss"] for step, row in values.items() if "train/loss" in row}


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_loss_is_each_step_own(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """Each step has the loss of its own micro-batches, over the tokens of all ranks."""
    outcome = outcomes[case.name]
    losses = losses_of(recorded_means(sessions(outcome.folder)))
    assert losses == pytest.approx(expected_losses(case.variant, outcome, 0), rel=1e-6)
    assert list(losses) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_logged_values_agree(outcomes: Mapping[str, Outcome], case: Case) -> None:
    """The Trainer's own log has the same rate and norm, and the mean of the losses since the log before."""
    outcome = outcomes[case.name]
    values = recorded_means(sessions(outcome.folder))
    logs = [log for log in records(outcome)[0]["logs"] if "learning_rate" in log]
    assert len(logs) == STEPS // 4
    for log in logs:
        step = log["step"]
        row = values[step]
        assert row["train/learning_rate"] == pytest.approx(log["learning_rate"])
        assert row["train/grad_norm"] == pytest.approx(log["grad_norm"])
        assert row["train/epoch"] == pytest.approx(log["epoch"])
        assert row["train/data_wait"] > 0
        if case.variant != "own_tokens":
            since = range(6 if case.resumed and step == 8 else step - 3, step + 1)  # its checkpoint is of step 5
            mean = sum(values[step]["train/loss"] for step in since) / len(since)
            assert mean == pytest.approx(log["loss"], rel=1e-5)


def test_resumed_run_goes_on(outcomes: Mapping[str, Outcome]) -> None:
    """Training that goes on from a checkpoint is another attempt of its run, and the first one tells what ended it."""
    first, second = sessions(outcomes[RESUMED.name].folder)
    assert first.identity.run_id == second.identity.run_id
    assert min(losses_of(recorded_means([second]))) == 6
    assert first.error == "FloatingPointError"


def test_evaluations_have_their_step(outcomes: Mapping[str, Outcome]) -> None:
    """What a Trainer evaluates, before the first step too, is recorded with its step, under the name that wandb has."""
    outcome = outcomes[EVALUATED.name]
    values = recorded_means(sessions(outcome.folder))
    logged = {
        (log["step"], f"eval/{name}_loss"): log[f"eval_{name}_loss"]
        for log in records(outcome)[0]["logs"]
        for name in "ab"
        if f"eval_{name}_loss" in log
    }
    assert {step for step, _ in logged} == {0, 3, 6, 9, 12}
    recorded = {(step, key): row[key] for step, row in values.items() for key in row if key.endswith("_loss")}
    assert recorded == pytest.approx(logged, rel=1e-9)


def test_own_logs_are_means(outcomes: Mapping[str, Outcome]) -> None:
    """What a subclass logs on each rank is a mean over the ranks, at the steps where it was logged."""
    outcome = outcomes[EVALUATED.name]
    logs = [[log for log in record["logs"] if "reward" in log] for record in records(outcome)]
    expected = {both[0]["step"]: sum(log["reward"] for log in both) / RANKS for both in zip(*logs, strict=True)}
    values = recorded_means(sessions(outcome.folder))
    assert {step: row["train/reward"] for step, row in values.items() if "train/reward" in row} == expected
    assert list(expected) == [4, 8, 12]


def test_own_wandb_run_is_whole(outcomes: Mapping[str, Outcome]) -> None:
    """The run that transformers' own callback makes beside ours has what it has without ours."""
    outcome = outcomes[EVALUATED.name]
    [path] = outcome.folder.glob("wandb/offline-run-*/*.wandb")
    rows = [row.values for row in read_history(path)]
    logs = [log for log in records(outcome)[0]["logs"] if "loss" in log]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx([log["loss"] for log in logs])


def test_each_fit_is_whole(outcomes: Mapping[str, Outcome]) -> None:
    """Each train() is a session with all of its steps, that ends as it did, whatever ended the one before."""
    outcome = outcomes[FITS.name]
    rings = sessions(outcome.folder)[:-2]  # the last two are of an evaluation
    ends = [(STEPS, ""), (STEPS, ""), (2, "KeyboardInterrupt"), (3, ""), (6, "")]
    assert len(rings) == len(ends)
    for index, (reader, (steps, error)) in enumerate(zip(rings, ends, strict=True)):
        losses = losses_of(recorded_means([reader]))
        assert list(losses) == list(range(1, steps + 1))
        assert losses == pytest.approx(
            {step: loss for step, loss in expected_losses("tokens", outcome, index).items() if step <= steps}, rel=1e-6
        )
        assert reader.error == error
    assert len({reader.identity.run_id for reader in rings}) == len(ends)


def test_terminated_ranks_keep_steps(outcomes: Mapping[str, Outcome]) -> None:
    """SIGTERM in a step kills the ranks as it does without telemetry, and the rings have each step before."""
    outcome = outcomes[KILLED.name]
    check_terminated(outcome.folder, expected_losses(TERMINATED, outcome, 0))


@pytest.mark.parametrize("case", [EVALUATED, RESUMED], ids=lambda case: case.name)
def test_wandb_has_ring_values(outcomes: Mapping[str, Outcome], tmp_path: Path, case: Case) -> None:
    """The wandb file has the rings' values, step by step, and an evaluation before the first step."""
    check_wandb(outcomes[case.name].folder, tmp_path)


def test_later_evaluation_joins_run(outcomes: Mapping[str, Outcome]) -> None:
    """What is evaluated after a train() goes into its run, at its last step."""
    outcome = outcomes[FITS.name]
    *_, fit, first, second = sessions(outcome.folder)
    assert {first.identity.run_id, second.identity.run_id} == {fit.identity.run_id}
    *_, log = (log for log in records(outcome)[0]["logs"] if "eval_b_loss" in log)
    assert recorded_means([second])[6]["eval/b_loss"] == pytest.approx(log["eval_b_loss"])
    assert "eval/a_loss" in recorded_means([first])[6]


def test_example_reaches_wandb(tmp_path: Path) -> None:
    """The example that a user would copy has a row for each step in wandb, and one for each evaluation."""
    path = ROOT / "examples" / "trainers" / "hf_trainer.py"
    with BridgeProcess(tmp_path) as bridge:
        sending = {"OTEL_TRAIN_SIDECAR": "embedded", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{bridge.address}"}
        named = {"OTEL_TRAIN_RING_DIR": str(tmp_path / "rings"), "OTEL_TRAIN_RUN_ID": "example"}
        cpu = {"ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path)}
        run_program(ENVIRONMENT, path, seconds=200, **sending, **named, **cpu)
        bridge.wait(23, "example")
        wait_until(lambda: not is_served(tmp_path / "rings"), 60, "the sidecar's end")
        bridge.stop()
    values = [row.values for row in read_run(bridge.state, "example")]
    assert [row["train/step"] for row in values if "eval/loss" in row] == [8, 16, 20]
    losses = {row["train/step"]: row["train/loss"] for row in values if "train/loss" in row}
    assert losses == pytest.approx(losses_of(recorded_means(sessions(tmp_path))))
    assert list(losses) == list(range(1, 21))
    assert len(path.read_text().splitlines()) < 60
