"""pytorch-ignite's trainers: what is recorded is what each rank has measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from otel_train.bridge import read_history
from otel_train.ring import RingReader, ring_files
from tests.integrations.support.case_loop import TERMINATED, Case, cases_of
from tests.integrations.support.loader_job import RANKS, Outcome, interpreter
from tests.integrations.support.terminated_rings import check_terminated
from tests.integrations.support.trainer_record import record_means, recorded_means, sessions
from tests.integrations.support.wandb_rows import check_wandb
from tests.support.ports import free_port
from tests.support.torchrun import ROOT, rank_environment

JOB, ENVIRONMENT = "ignite_trainer", "torch"
STRAIGHT = ("accumulated", "failed", "swallowed", "interrupted")
KILLED = Case(variant=TERMINATED)
CASES = [
    KILLED,
    *cases_of("plain", "meter", workers=(0,)),
    *(case for case in cases_of(*STRAIGHT, "again", workers=(0,)) if not case.resumed),
]
pytestmark = pytest.mark.integrations


def check(readers: Iterable[RingReader], folder: Path) -> None:
    """Compare each value of each step with the mean of what the ranks noted, by its weights."""
    expected, recorded = record_means(folder, RANKS), recorded_means(readers)
    assert list(recorded) == list(expected)
    for step, values in expected.items():
        own = {key: value for key, value in recorded[step].items() if key in values or key.startswith("val/")}
        assert own == pytest.approx(values, rel=1e-6), f"step {step}"


@pytest.mark.parametrize("case", ["plain-0-straight", "plain-0-resumed", *(f"{name}-0-straight" for name in STRAIGHT)])
def test_values_match_records(outcomes: Mapping[str, Outcome], case: str) -> None:
    """Each value of each step is the mean over what the ranks noted, and no step is there besides."""
    check(sessions(outcomes[case].folder), outcomes[case].folder)


@pytest.mark.parametrize("case", ["meter-0-straight", "meter-0-resumed"])
def test_mix_matches_consumed(outcomes: Mapping[str, Outcome], case: str) -> None:
    """A checkpoint that is saved by the first of the step's handlers has that step's rows, which count once."""
    outcomes[case].check_values()


def test_wandb_has_ring_values(outcomes: Mapping[str, Outcome], tmp_path: Path) -> None:
    """The wandb file of a run that was resumed has the rings' values, step by step, evaluations among them."""
    check_wandb(outcomes["plain-0-resumed"].folder, tmp_path)


def test_own_wandb_run_is_whole(outcomes: Mapping[str, Outcome]) -> None:
    """Ignite's WandBLogger beside ours has what it has alone: rank 0's loss of each iteration."""
    folder = outcomes["accumulated-0-straight"].folder
    [path] = folder.glob("wandb/offline-run-*/*.wandb")
    losses = [value for _, key, value, _ in json.loads((folder / "record0.json").read_text()) if key == "train/loss"]
    assert [row.values["own/loss"] for row in read_history(path)] == pytest.approx(losses, rel=1e-6)


def test_sessions_tell_their_ends(outcomes: Mapping[str, Outcome]) -> None:
    """An exception and an interrupt end their run's session by name; one that the user swallows ends none."""
    readers = {name: sessions(outcomes[f"{name}-0-straight"].folder) for name in STRAIGHT}
    errors = {name: [reader.error for reader in those] for name, those in readers.items()}
    assert errors.pop("failed") == ["ZeroDivisionError", "KeyboardInterrupt"]
    assert all(error == [""] for error in errors.values())


def test_terminated_ranks_keep_steps(outcomes: Mapping[str, Outcome]) -> None:
    """SIGTERM in a step kills the ranks as it does without telemetry, and the rings have each step before."""
    folder = outcomes[KILLED.name].folder
    check_terminated(folder, {step: values["train/loss"] for step, values in record_means(folder, RANKS).items()})


def test_each_run_has_session(outcomes: Mapping[str, Outcome]) -> None:
    """A run that goes on and one that starts over are recorded with their steps, in the run that the user named."""
    folder = outcomes["again-0-straight"].folder
    first, second, over = sessions(folder)
    assert [reader.progress.step for reader in (first, second, over)] == [10, 20, 10]
    check([first, second], folder)
    check([over], folder / "over")


def test_spawned_example_is_recorded(tmp_path: Path) -> None:
    """Under ignite's own launcher, which names no local world size, both ranks are of one run and know their places."""
    program = ROOT / "examples" / "trainers" / "ignite_engine.py"
    rings = tmp_path / "rings"
    environment = rank_environment(OTEL_TRAIN_RING_DIR=str(rings), MASTER_PORT=str(free_port()))
    command = [str(interpreter(ENVIRONMENT)), str(program), "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    readers = [RingReader(path) for path in ring_files(rings)]
    assert len({reader.identity.run_id for reader in readers}) == 1
    assert [reader.identity.local_rank for reader in readers] == [0, 1]
    assert {reader.facts["job.local_world_size"] for reader in readers} == {2}
    values = recorded_means(sessions(tmp_path))
    assert [step for step in values if "train/loss" in values[step]] == list(range(1, 31))
    assert [step for step in values if "val/loss" in values[step]] == [10, 20, 30]
