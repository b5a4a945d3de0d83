"""The examples that a user would copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.support.torchrun import run_torchrun

FOLDER = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.matrix


def run_example(name: str, rings: Path, *arguments: str, ranks: int = 2) -> dict[int, dict[str, float]]:
    """Run an example under torchrun, and return the cluster's values of each step, with those logged beside it."""
    program = (FOLDER / name, *arguments)
    run_torchrun(ranks, *program, OTEL_TRAIN_RING_DIR=str(rings), OTEL_TRAIN_RUN_ID="example")
    readers = [RingReader(path) for path in ring_files(rings)]
    reader = next(reader for reader in readers if reader.identity.rank == 0)
    rows: dict[int, dict[str, float]] = {}
    for record in reader.read(0, 1000)[0]:
        if record.kind in (Kind.CLUSTER, Kind.BOTH):
            rows.setdefault(record.step, {}).update(record.by_key())
    return rows


def test_own_loop_learns(tmp_path: Path) -> None:
    """The loss of a loop of one's own falls, and its loader's picks are those of both ranks."""
    rows = run_example("own_loop.py", tmp_path)
    assert list(rows) == [10, 20, 30, 40, 50]
    assert rows[50]["train/loss"] < rows[10]["train/loss"]
    assert rows[50]["stream_mixing/picks"] == 2 * 8 * 10


def test_ledger_holds_states(tmp_path: Path) -> None:
    """Dataset and ledger show a healthy mix, and no state that is lost."""
    rows = run_example("dataset_and_ledger.py", tmp_path)
    assert list(rows) == list(range(1, 31))
    assert all(row["ledger/evictions"] == 0 for row in rows.values())
    assert rows[30]["stream_mixing/mix_divergence"] < 0.01
    assert rows[30]["state/held"] > rows[1]["state/held"] == 0


def test_own_source_sums_ranks(tmp_path: Path) -> None:
    """A source's counts are added up over the ranks, and its rate is weighted."""
    rows = run_example("own_source.py", tmp_path)
    assert [row["cache/lookups"] for row in rows.values()] == [300.0] * 30
    assert rows[1]["cache/hit_rate"] < 0.2
    assert rows[30]["cache/hit_rate"] > 0.8
    assert rows[30]["cache/entries_rank"] == 1


def test_own_metrics_are_reduced(tmp_path: Path) -> None:
    """Sums, maxima with their rank, and weighted means arrive for each step."""
    rows = run_example("own_metrics.py", tmp_path)
    assert list(rows) == list(range(1, 21))
    assert all(row["train/tokens"] >= 4 + row["train/longest"] for row in rows.values())
    assert {row["train/longest_rank"] for row in rows.values()} == {0.0, 1.0}


def test_resume_continues_run(tmp_path: Path) -> None:
    """A job on three ranks goes on where that on two was saved: states are there from its first step on."""
    rings = tmp_path / "rings"
    before = run_example("resume.py", rings / "a", str(tmp_path / "saved"), ranks=2)
    after = run_example("resume.py", rings / "b", str(tmp_path / "saved"), ranks=3)
    assert (list(before), list(after)) == (list(range(1, 21)), list(range(21, 41)))
    assert before[1]["state/held"] == 0
    assert after[21]["state/held"] > 0.5


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_examples_stay_short(path: Path) -> None:
    """Each example has under 60 lines, and its docstring says in two how to run it."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[2].startswith("Run it ")


def test_losses_come_by_source(tmp_path: Path) -> None:
    """The loss falls in the source that can be learnt, stays in the noisy one, and the whole lies between."""
    rows = run_example("loss_by_source.py", tmp_path)
    assert list(rows) == list(range(1, 21))
    last = rows[20]
    assert last["train/loss/code"] < 0.5
    assert last["train/loss/prose"] > 2.0
    assert last["train/loss/code"] < last["train/loss"] < last["train/loss/prose"]


def test_plain_ddp_has_all_steps(tmp_path: Path) -> None:
    """A step that one rank lacks is the other's, both are there in the second epoch, and an evaluation has its step."""
    rows = run_example("trainers/plain_ddp.py", tmp_path)
    assert sorted(rows) == list(range(1, 41))
    assert sorted(step for step, row in rows.items() if row["train/ranks"] == 1) == [*range(16, 21), *range(36, 41)]
    assert rows[35]["train/loss"] < rows[1]["train/loss"]
    assert sorted(step for step, row in rows.items() if "eval/loss" in row) == [20, 40]
