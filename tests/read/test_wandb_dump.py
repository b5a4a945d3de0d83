"""The rows of a dump from wandb's files are those that were logged, in each of its formats."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from otel_train.bridge.wandb_file import read_run
from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.read.history import SourceError
from otel_train.read.row_spool import BLOCK_ROWS
from otel_train.read.wandb import read_file
from otel_train.ring import Identity, Kind, RingWriter, ring_path
from tests.support.dump_command import dump, dumped
from tests.support.job_rings import SCHEMA, write_job
from tests.support.train_job import write_wandb_file

STEP = rows.STEP.wandb_key
LOGGED = 1000
"""The step for which values are logged beside the steps."""


def history() -> Iterator[list[dict[str, Any]]]:
    """Yield two attempts' rows: keys that one row has, one of them late, and values that were logged beside steps."""
    for attempt, steps in ((7, range(1, 1200)), (8, range(1101, 2600))):
        logged: list[dict[str, Any]] = [{STEP: step, ATTEMPT_KEY: attempt, "train/loss": step / 3} for step in steps]
        logged[-1] |= {"late": float("inf")}
        logged[len(logged) // 2] |= {"text": "x", "step": -0.0}
        logged.append({STEP: LOGGED if attempt == 7 else 2000, ATTEMPT_KEY: attempt, "eval/loss": 0.1})
        yield logged


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a bridge's state directory; its files' names are not in the order of their rows."""
    first, second = history()
    for folder, logged, ordinal in (("2", first, 0), ("1", second, len(first))):
        numbered = [row | {"_step": ordinal + at} for at, row in enumerate(logged)]
        write_wandb_file(tmp_path / "wandb" / f"offline-run-{folder}" / "run-a.wandb", numbered)
    return tmp_path


def test_rows_are_those_that_were_logged(state: Path) -> None:
    """Of all attempts, in their order, over blocks and files: each with what it has, and nothing that it lacks."""
    expected = [
        {
            "run": "a",
            "attempt": row.values[ATTEMPT_KEY],
            "rank": 0,
            "kind": "cluster_logged" if "eval/loss" in row.values else "cluster",
            "step": row.values[STEP],
            "time_ns": round(row.timestamp * 1e9),
        }
        | {key: row.values[key] for key in ("train/loss", "eval/loss") if key in row.values}
        | ({"late": "Infinity"} if "late" in row.values else {})
        | ({"metric/step": -0.0} if "step" in row.values else {})
        for row in read_run(state, "a")
    ]
    assert len(expected) > 2 * BLOCK_ROWS
    given = dumped(state, "--all-attempts")
    assert [{key: value for key, value in row.items() if key != "time"} for row in given] == expected


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], [*range(1101, 2600), 2000]),
        (["--since", "2590"], [*range(2590, 2600)]),
        (["--since", "1990", "--all-attempts", "--kind", "cluster"], [*range(1990, 2600), 2000]),
    ],
)
def test_rows_are_selected(arguments: list[str], steps: list[int], state: Path) -> None:
    """The newest attempt's without --all-attempts; a first step that is within a block."""
    given = dumped(state, *arguments)
    assert [row["step"] for row in given] == steps
    assert all(row["train/loss"] == row["step"] / 3 for row in given if row["kind"] == "cluster")


def test_time_span_ends_with_newest_row(state: Path) -> None:
    """--since with a time leaves out what is older than that before the newest row."""
    times = [row.timestamp for row in read_run(state, "a") if row.values[ATTEMPT_KEY] == 8]
    within = [time for time in times if round(time * 1e9) >= round(max(times) * 1e9) - 60 * 10**9]
    assert len(dumped(state, "--since", "1m")) == len(within) < len(times)


def test_formats_are_alike(state: Path, tmp_path: Path) -> None:
    """CSV and Parquet have the same values, of one file by itself too."""
    [file] = (state / "wandb" / "offline-run-1").iterdir()
    expected = [(row["step"], row.get("train/loss")) for row in dumped(file)]
    for name in ("x.csv", "x.parquet"):
        assert dump(file, "--metric", "train/loss", "--out", tmp_path / name).exit_code == 0
    with (tmp_path / "x.csv").open() as text:
        of_csv = [(int(row["step"]), float(row["train/loss"] or "nan")) for row in csv.DictReader(text)]
    table = parquet.read_table(tmp_path / "x.parquet")
    assert of_csv[:-1] == expected[:-1]
    assert list(zip(table["step"].to_pylist(), table["train/loss"].to_pylist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rank", "0"], "--rank 0: wandb files have the cluster's values only"),
        (["--kind", "rank"], "--kind rank: wandb files have the cluster's values only"),
        (["--metric", "train/lss"], "the nearest is 'train/loss'"),
        (["--run", "b"], "holds no wandb file of run b"),
    ],
)
def test_what_files_lack_is_refused(arguments: list[str], complaint: str, state: Path) -> None:
    """What no row can have is one line that says so, and nothing is written."""
    result = dump(state, *arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert complaint in result.stderr


def test_run_without_steps_is_told(tmp_path: Path) -> None:
    """A file of somebody else's run, which has no rows of ours, is told by the key that it lacks."""
    path = tmp_path / "x" / "run-a.wandb"
    write_wandb_file(path, [{"loss": 1.0}, {"loss": 0.5}])
    complaint = f"no row with {STEP} is in there yet"
    assert complaint in dump(path).stderr
    with pytest.raises(SourceError, match=complaint):
        read_file(path)


def test_logged_rows_are_told_apart(tmp_path: Path) -> None:
    """What was logged for a step is told from the step's own row, whichever comes first, or where there is none."""
    logged = [(10, True), (15, False), (40, False), (40, True), (50, True), (50, False)]
    given = [
        {STEP: step, ATTEMPT_KEY: 1} | ({rows.RANKS.wandb_key: 2, "train/loss": 1.0} if own else {"eval/loss": 2.0})
        for step, own in logged
    ]
    write_wandb_file(tmp_path / "x" / "run-a.wandb", given)
    told = [(row["step"], row["kind"] == "cluster") for row in dumped(tmp_path / "x" / "run-a.wandb")]
    assert told == logged


@pytest.mark.parametrize("attempt", [float("inf"), 1e300, -1e300])
def test_odd_attempt_is_written(attempt: float, tmp_path: Path) -> None:
    """An attempt that no integer of a column holds is the nearest that one does."""
    path = tmp_path / "x" / "run-a.wandb"
    write_wandb_file(path, [{STEP: 1, ATTEMPT_KEY: attempt, "a": 1.0}])
    assert dumped(path)[0]["attempt"] == round(math.copysign(2.0**62, attempt))
    assert dump(path, "--out", tmp_path / "x.parquet").exit_code == 0


def test_run_is_chosen(state: Path) -> None:
    """--run takes the rings of one run, older ones too, or its wandb files; one that is not there is named."""
    folder = state / "rings"
    folder.mkdir()
    for run, attempt in (("first", 1), ("second", 2)):
        identity = Identity(run_id=run, attempt=attempt)
        ring = RingWriter(ring_path(folder, identity), SCHEMA, identity, records=8)
        ring.write(attempt, 10, Kind.RANK, [1.0] * ring.geometry.values)
    for run, chosen in (("first", "first"), ("second", "second"), ("", "second"), ("a", "a")):
        assert {row["run"] for row in dumped(state, "--run", run)} == {chosen}
    result = dump(folder, "--run", "third")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds no ring of run 'third'; it has first, second" in result.stderr
    [file] = (state / "wandb" / "offline-run-1").iterdir()
    assert "is of run a, not 'b'" in dump(file, "--run", "b").stderr


def test_rings_precede_wandb_files(state: Path) -> None:
    """A folder with rings somewhere in it has the ranks' own records, whatever of wandb's lies beside them."""
    (state / "rings").mkdir()
    write_job(state / "rings", 1, 1)
    assert {row["kind"] for row in dumped(state)} == {"rank", "cluster"}
