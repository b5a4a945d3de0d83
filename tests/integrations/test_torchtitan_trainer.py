"""torchtitan's Trainer: its losses, the mix that it trained on, and each rank's own values, as one of all ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.ring import RingReader, ring_files
from tests.integrations.support.case_loop import Case
from tests.integrations.support.loader_job import JOBS, RANKS, Outcome, run_program
from tests.integrations.support.wandb_rows import check_wandb
from tests.support.torchrun import ROOT

JOB, ENVIRONMENT = "torchtitan_trainer", "titan"
EACH = [Case(variant="each"), Case(variant="each", resumed=True)]
"""Cases that log each step."""
PIPELINE = Case(variant="pipeline")
OLDER = Case(variant="older", resumed=True)
"""A case whose checkpoint was saved without telemetry."""
CASES = [*EACH, Case(variant="fifth"), PIPELINE, OLDER]
STEPS = 24
PARTS = 4
"""Parts of a step's loss at most: torch calls a pipeline's once more, with memory as it is, to learn its shape."""
SHARED = ("", ("loss_metrics", "stream_mixing/mix"))
"""Beginnings of what all ranks have alike, without and with a pipeline, whose stages log their own throughput."""
pytestmark = pytest.mark.integrations
names = pytest.mark.parametrize("name", [case.name for case in CASES])


def parts_of(outcome: Outcome, kind: str, step: int) -> list[tuple[float, int]]:
    """Return the sum of the losses and the number of labels of each rank that has some, in a step."""
    ranks = [json.loads((outcome.folder / f"losses{rank}.json").read_text())[kind] for rank in range(RANKS)]
    newest = [rank[str(step)][-PARTS:] for rank in ranks if rank.get(str(step))]
    return [(sum(loss for loss, _ in parts), sum(labels for _, labels in parts)) for parts in newest]


def expected_values(outcome: Outcome, step: int) -> dict[str, float]:
    """Return what torchtitan logs in a step, from the ranks' own records."""
    parts = parts_of(outcome, "train", step)
    losses, labels = zip(*parts, strict=True)
    pipeline = len(parts) == 1
    return {
        "train/loss": sum(losses) / sum(labels),
        "loss_metrics/global_avg_loss": sum(losses) / sum(labels),
        "loss_metrics/global_max_loss": max(loss / count for loss, count in parts),
        "n_tokens_seen": step * len(parts) * 8 * 16,
        "own/labels": 0 if pipeline else sum(labels) / RANKS,
        "memory/max_active(%)": 25 if pipeline else 50,
    }


def logged_steps(name: str) -> list[int]:
    """Return the steps that end an interval of a case."""
    first = 15 if name == OLDER.name else 1
    return (
        list(range(first, STEPS + 1))
        if name.startswith("each")
        else [step for step in (5, 10, 15, 20) if step >= first]
    )


@names
def test_losses_match_records(outcomes: Mapping[str, Outcome], name: str) -> None:
    """Each logged step has the losses, and the mean of what is each rank's own, that follow from all ranks' records."""
    values = outcomes[name].values
    for step in logged_steps(name):
        expected = expected_values(outcomes[name], step)
        assert {key: values[step][key] for key in expected} == pytest.approx(expected, rel=1e-5), f"step {step}"


@names
def test_validations_have_rows(outcomes: Mapping[str, Outcome], name: str) -> None:
    """What is logged beside the intervals, at step 1 and by a validation, is recorded under its step."""
    recorded = outcomes[name].values
    first = 15 if name == OLDER.name else 1
    for step in [1, *range(6, STEPS + 1, 6)]:
        if step >= first:
            losses, labels = zip(*parts_of(outcomes[name], "validation", step), strict=True)
            loss = recorded[step]["validation_metrics/loss"]
            assert loss == pytest.approx(sum(losses) / sum(labels), rel=1e-5), f"step {step}"
    if first == 1:
        assert recorded[1]["train/loss"] == pytest.approx(expected_values(outcomes[name], 1)["train/loss"], rel=1e-5)


@names
def test_own_log_has_cluster(outcomes: Mapping[str, Outcome], name: str) -> None:
    """The log of torchtitan itself has the values of all ranks, the mix among them, as the rings do."""
    values = outcomes[name].values
    logged = json.loads((outcomes[name].folder / "logged.json").read_text())
    for step in logged_steps(name):
        row = {key: value for key, value in values[step].items() if key.startswith(SHARED[name == PIPELINE.name])}
        row = {key: value for key, value in row.items() if not key.startswith("validation")}
        assert {key: logged[str(step)][key] for key in row} == pytest.approx(row, rel=1e-5), f"step {step}"
        assert {"loss_metrics/global_avg_loss", "stream_mixing/mix_divergence"} <= row.keys()


@pytest.mark.parametrize("name", [case.name for case in EACH])
def test_mix_matches_consumed(outcomes: Mapping[str, Outcome], name: str) -> None:
    """Each value of each step's mix is that computed from the rows that were trained on."""
    outcomes[name].check_values()


def test_wandb_has_ring_values(outcomes: Mapping[str, Outcome], tmp_path: Path) -> None:
    """The wandb file of a trainer that was resumed has the rings' values, step by step, validations among them."""
    check_wandb(outcomes[EACH[1].name].folder, tmp_path)


def test_resumed_run_goes_on(outcomes: Mapping[str, Outcome]) -> None:
    """A trainer that loads a checkpoint goes on in its run, as an attempt after the one that was interrupted."""
    readers = [RingReader(path) for path in ring_files(outcomes[EACH[1].name].folder / "rings")]
    assert len({reader.identity.run_id for reader in readers}) == 1
    ends = sorted((reader.identity.attempt, reader.error) for reader in readers)
    assert [error for _, error in ends] == ["KeyboardInterrupt"] * RANKS + [""] * RANKS


def test_example_logs_mix(tmp_path: Path) -> None:
    """The example's registry works in torchtitan's own program: each interval has the loss and picks of both ranks."""
    options = {"training.steps": 20, "training.seq_len": 16, "training.local_batch_size": 4, "metrics.log_freq": 5}
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    run_program(
        ENVIRONMENT, JOBS / "torchtitan_main_job.py", *arguments, "--dump_folder", tmp_path / "titan", seconds=200,
        OTEL_TRAIN_RING_DIR=str(tmp_path / "rings"),
    )  # fmt: skip
    outcome = Outcome(tmp_path)
    assert list(outcome.values) == [1, 5, 10, 15, 20]
    picks = [values.get(rows.PICKS.wandb_key) for values in outcome.values.values()]
    assert picks == [None, *[RANKS * 4 * 5] * 4]
    assert all(values["train/loss"] > 0 for values in outcome.values.values())
    assert outcome.complaints() == []


def test_example_stays_short() -> None:
    """The example has under 60 lines, and its docstring says how to run it."""
    lines = (ROOT / "examples" / "trainers" / "torchtitan_registry.py").read_text().splitlines()
    assert len(lines) < 60
    assert lines[2].startswith("Run it")
