"""accelerate: what scripts log on each process comes as the mean over all of them, however they log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_train.ring import End, Kind, RingReader, ring_files
from tests.integrations.support.loader_job import JOBS, RANKS, Outcome, interpreter, run_program
from tests.integrations.support.terminated import LAST
from tests.integrations.support.terminated_rings import check_terminated
from tests.integrations.support.wandb_rows import check_wandb
from tests.support.ports import free_port
from tests.support.torchrun import ROOT, rank_environment

CASES = (
    *("straight", "resumed", "repeated", "counted", "declared_main", "undeclared_main", "failed"),
    *("measured", "measured_resumed"),
)
pytestmark = pytest.mark.integrations


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all scripts in one job, and return the folder of what they have left."""
    base = tmp_path_factory.mktemp("accelerate")
    for case in (*CASES, "terminated"):
        (base / case).mkdir()
    port = str(free_port())
    run_program("torch", JOBS / "accelerate_trainer_job.py", base, *CASES, seconds=120, JOB_PORT=port)
    return base


def rings(case: Path) -> list[RingReader]:
    """Return the rings of rank 0 in the order of their attempts."""
    readers = [RingReader(path) for path in ring_files(case / "rings")]
    return sorted((reader for reader in readers if reader.identity.rank == 0), key=lambda one: one.identity.attempt)


def recorded(case: Path) -> dict[str, dict[int, float]]:
    """Return the cluster's values by key and step."""
    values = defaultdict[str, dict[int, float]](dict)
    for reader in rings(case):
        for record in reader.read(0, sys.maxsize)[0]:
            if record.kind in (Kind.CLUSTER, Kind.BOTH):
                for key, value in record.by_key().items():
                    assert record.step not in values[key], f"{key} has two values at step {record.step}"
                    values[key][record.step] = value
    return values


def expected(case: Path) -> Mapping[str, Mapping[int, float]]:
    """Return the weighted means of what all processes wrote down, by key and step."""
    sums = defaultdict[tuple[str, int], list[float]](lambda: [0.0, 0.0])
    for rank in range(RANKS):
        for step, key, value, weight in json.loads((case / f"rank{rank}.json").read_text()):
            sums[key, step][0] += value * weight
            sums[key, step][1] += weight
    means = defaultdict[str, dict[int, float]](dict)
    for (key, step), (total, weight) in sums.items():
        means[key][step] = total / weight
    return means


@pytest.mark.parametrize("case", CASES)
def test_values_are_all_processes(folder: Path, case: str) -> None:
    """Each value of each step is the weighted mean of what the processes logged, and no step is missing or added."""
    values = recorded(folder / case)
    for key, by_step in expected(folder / case).items():
        assert values[key] == pytest.approx(by_step, rel=1e-6), key


def test_wandb_has_ring_values(folder: Path, tmp_path: Path) -> None:
    """The wandb file of a script that was resumed has the rings' values, step by step, evaluations among them."""
    check_wandb(folder / "resumed", tmp_path)


def test_second_trackers_log_once(folder: Path) -> None:
    """A tracker that is begun twice gets each value once: both processes' rows are summed once a step."""
    assert set(recorded(folder / "straight")["train/rows"].values()) == {16.0}


@pytest.mark.parametrize("rank", range(RANKS))
def test_log_after_end_warns(folder: Path, rank: int) -> None:
    """What is logged after `end_training`, which has ended the group, is one warning and no error of the script's."""
    (warning,) = json.loads((folder / "counted" / f"late{rank}.json").read_text())
    assert "came after accelerator.end_training()" in warning


def test_configuration_is_in_ring(folder: Path) -> None:
    """What `init_trackers` was given is among the facts of the main process' ring."""
    facts = rings(folder / "straight")[0].facts
    assert (facts["config.rate"], facts["config.name"]) == (0.5, "pilot")


def test_resumed_run_goes_on(folder: Path) -> None:
    """A script that loads accelerate's checkpoint is the next attempt of the same run, and makes no step again."""
    first, second = rings(folder / "resumed")
    assert first.identity.run_id == second.identity.run_id
    steps = [[record.step for record in reader.read(0, sys.maxsize)[0]] for reader in (first, second)]
    assert max(steps[0]) < min(steps[1])


def test_resumed_meter_counts_on(folder: Path) -> None:
    """The mix of both processes goes on from accelerate's checkpoint as if the script had never stopped."""
    straight, resumed = (recorded(folder / case) for case in ("measured", "measured_resumed"))
    # alike_ranks is an estimate, whose noise each attempt has of its own.
    mixing = [key for key in straight if key.startswith("stream_mixing/") and "alike" not in key]
    assert set(straight["stream_mixing/picks"].values()) == {8.0}
    assert {key: resumed[key] for key in mixing} == {key: pytest.approx(straight[key]) for key in mixing}


@pytest.mark.parametrize("case", ["declared_main", "undeclared_main"])
def test_main_process_values_stay_its_own(folder: Path, case: str) -> None:
    """Where the main process alone logs, its values are recorded as those of one rank, at once."""
    assert set(recorded(folder / case)["train/ranks"].values()) == {1.0}


def test_ends_are_recorded(folder: Path) -> None:
    """A session that `end_training` ends is closed, and has the exception that it was called for."""
    ends = {
        case: (rings(folder / case)[0].progress.end, rings(folder / case)[0].error) for case in ("straight", "failed")
    }
    assert ends == {"straight": (End.CLOSED, ""), "failed": (End.CLOSED, "ArithmeticError")}


def test_terminated_processes_keep_steps(folder: Path) -> None:
    """SIGTERM in a step kills the processes as it does without telemetry, and the rings have each step before."""
    check_terminated(folder / "terminated", expected(folder / "terminated")["train/loss"], LAST + 1)


def test_spawned_tracker_has_both(tmp_path: Path) -> None:
    """A tracker that is pickled to processes of `mp.spawn` begins a session in each, all of one run."""
    command = [*map(str, (interpreter("torch"), JOBS / "accelerate_spawn_job.py", tmp_path / "rings", free_port()))]
    done = subprocess.run(command, env=rank_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path)["train/loss"] == {1: 5.5, 2: 11.0}


def test_example_learns(tmp_path: Path) -> None:
    """The example that a user would copy, of under 60 lines, has a falling loss of both processes at each step."""
    path = ROOT / "examples" / "trainers" / "accelerate_tracker.py"
    run_program("torch", path, seconds=120, OTEL_TRAIN_RING_DIR=str(tmp_path / "rings"), ACCELERATE_USE_CPU="true")
    rows = Outcome(tmp_path).values
    assert list(rows) == list(range(1, 21))
    assert rows[20]["train/loss"] < rows[1]["train/loss"]
    assert {row["train/ranks"] for row in rows.values()} == {RANKS}
    assert len(path.read_text().splitlines()) < 60
