"""Sessions and reductions over two real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_train.catalogue import rows
from otel_train.ring import Kind, RingReader, ring_files

ROOT = Path(__file__).parents[2]
Run = Callable[[str], list[Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a case on two ranks and gives what each said."""

    def run_case(case: str) -> list[Any]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += [str(Path(__file__).with_name("session_ranks.py")), case, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        files = [tmp_path / f"rank{rank}.json" for rank in range(2)]
        assert all(file.exists() for file in files), done.stderr
        return [json.loads(file.read_text()) for file in files]

    return run_case


def test_values_over_two_ranks_are_those_worked_out_by_hand(run: Run) -> None:
    """Weighted means, the maximum with its rank, a divergence of the joined counts, on both ranks alike."""
    said = run("aggregated")
    assert said[0] == said[1]
    # Ages at step 3 of four readers: the two that were picked in step 1, and the two that never were, 2 each.
    assert said[0]["stream_mixing/staleness_mean"] == 2.0
    assert said[0]["stream_mixing/picks"] == 3
    assert said[0]["stream_mixing/staleness_max_rank"] == 0
    assert said[0]["stream_mixing/modality_share/b"] == pytest.approx(2 / 3, rel=1e-3)
    assert said[0]["stream_mixing/modality_target/b"] == pytest.approx(3 / 4)
    assert said[0]["stream_mixing/tokens/a"] == 10


def test_loss_metrics_are_means_and_totals_with_their_maximum(run: Run) -> None:
    """Means by default, cluster totals for sum_keys, and what the largest rank has beside them."""
    assert run("loss_metrics") == [[{"n": 3.0, "n_max": 2.0, "x": 0.5}, {"n": 5.0, "n_max": 3.0, "x": 0.5}]] * 2


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("other_keys", "SchemaMismatchError: metric 'y' is given by rank 1 and not by rank 0"),
        ("other_schema", "SchemaMismatchError: metric 'extra' is given by rank 1 and not by rank 0"),
        ("one_wrong", "ConfigurationError: rank 1: metric 'loss' must be a number"),
    ],
)
def test_what_differs_or_is_wrong_on_one_rank_is_an_error_on_all(case: str, complaint: str, run: Run) -> None:
    """Key and rank are named, and nobody waits for somebody who has raised."""
    assert all(said.startswith(complaint) for said in run(case))


def test_blocking_gives_the_values_of_the_same_step(run: Run) -> None:
    """On every rank."""
    assert run("blocking") == [[1.5, 2.5, 3.5]] * 2


def test_asynchronous_values_are_recorded_under_their_step(run: Run, tmp_path: Path) -> None:
    """However late a reduction is harvested; and the ranks have loaded torch and the standard library only."""
    assert run("asynchronous") == [[], []]
    reader = RingReader(ring_files(tmp_path / "rings")[0])
    records, _, lost = reader.read(0, 1000)
    place = reader.layout.offsets[rows.PICKS.name]
    picks = {record.step: record.values[place] for record in records if record.kind is Kind.CLUSTER}
    assert (picks, lost) == ({step: 3.0 * step for step in range(1, 31)}, 0)


def test_steps_that_the_ranks_do_not_share_are_thrown_away_and_counted(run: Run, tmp_path: Path) -> None:
    """A skipped step costs itself, not the next one."""
    assert run("out_of_step") == [[True, False, True]] * 2
    reader = RingReader(ring_files(tmp_path / "rings")[0])
    cluster = [record.step for record in reader.read(0, 1000)[0] if record.kind is Kind.CLUSTER]
    assert (cluster, reader.progress.abandoned) == ([1, 4], 1)


def test_a_rank_that_leaves_does_not_make_another_wait(run: Run, tmp_path: Path) -> None:
    """The other one trains on and closes within its bounds, and what was lost is counted."""
    assert run("leaves_early") == [True, "left"]
    reader = RingReader(ring_files(tmp_path / "rings")[0])
    assert (reader.progress.step, reader.progress.closed) == (20, True)
    assert reader.progress.abandoned >= 16
