"""The rows of a dump, in each of its formats."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from otel_train.read.row_texts import rfc3339
from otel_train.ring import Kind
from tests.support.dump_command import dump, dumped
from tests.support.job_rings import ATTEMPT, EVICTIONS, SECOND, FakeRank, write_job


def test_row_has_record(tmp_path: Path) -> None:
    """A row has its record's rank, kind, step and time, and the values by their keys."""
    write_job(tmp_path, 2, 2)
    written = dumped(tmp_path)
    assert [(row["rank"], row["kind"], row["step"]) for row in written] == [
        (0, "rank", 1), (0, "cluster", 1), (0, "rank", 2), (0, "cluster", 2), (1, "rank", 1), (1, "rank", 2),
    ]  # fmt: skip
    last = written[-1]
    assert (last["run"], last["attempt"], last["time_ns"]) == ("run", ATTEMPT, ATTEMPT * 10**6 + 2 * SECOND)
    assert last["time"] == "2023-11-14T22:13:22.000000000Z"
    assert (last["stream_mixing/picks"], last["train/loss"]) == (4, 0.5)
    assert last["stream_mixing/modality_share/code"] == 0.75
    assert "stream_mixing/staleness_max_rank" in written[3]
    assert "stream_mixing/staleness_max_rank" not in last


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "4", "--rank", "1"], {(1, "rank", 4), (1, "rank", 5)}),
        (["--since", "1s", "--kind", "rank"], {(rank, "rank", step) for rank in (0, 1, 2) for step in (4, 5)}),
        (["--since", "1", "--kind", "rank"], {(rank, "rank", step) for rank in (0, 1, 2) for step in range(1, 6)}),
        (["--kind", "cluster"], {(0, "cluster", step) for step in range(1, 6)}),
        (["--rank", "1", "--rank", "2", "--since", "5"], {(1, "rank", 5), (2, "rank", 5)}),
        (["--since", "0s", "--all-attempts"], {(0, "rank", 5), (0, "cluster", 5), (1, "rank", 5), (2, "rank", 5)}),
        (["--since", "0", "--all-attempts", "--rank", "3"], {(3, "rank", 1)}),
    ],
)
def test_records_are_selected(arguments: list[str], expected: set[tuple[int, str, int]], tmp_path: Path) -> None:
    """A time span ends with the newest record; without --all-attempts the newest attempt alone is dumped."""
    FakeRank(tmp_path, 3, 4, attempt=ATTEMPT - 1).write(1)
    write_job(tmp_path, 3, 5)
    assert {(row["rank"], row["kind"], row["step"]) for row in dumped(tmp_path, *arguments)} == expected


def test_values_are_selected(tmp_path: Path) -> None:
    """Names and patterns select values, in the job's order."""
    write_job(tmp_path, 1, 1)
    [row] = dumped(tmp_path, "--kind", "rank", "--metric", "train/loss", "--metric", "ledger/e*s")
    assert list(row)[7:] == ["ledger/evictions", "ledger/entries", "train/loss"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--metric", "ledger/evictoins"], "is not one of this job's; the nearest is 'ledger/evictions'"),
        (["--rank", "7"], "--rank 7 has no ring in"),
        (["--since", "10 minutes"], "--since must be a step or a time span such as 90s"),
        (["--format", "parquet"], "give --out FILE.parquet"),
        (["--out", "/nowhere/at/all.csv"], "/nowhere/at is not a directory"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    """A wrong option is one line that says what to do, and nothing is written."""
    write_job(tmp_path, 1, 1)
    result = dump(tmp_path, *arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert complaint in result.stderr


def test_formats_keep_nonfinite_numbers(tmp_path: Path) -> None:
    """NaN and infinities are the texts of protobuf's JSON, and themselves in Parquet; a missing value stays missing."""
    rank = FakeRank(tmp_path, 0, 1)
    given = [math.nan, math.inf, -math.inf, 0.1 + 0.2, None]
    for step, value in enumerate(given, start=1):
        rank.write(step, values={"train/loss:count": 0.0} if value is None else {"train/loss:total": value})
    texts = [row.get("train/loss") for row in dumped(tmp_path)]
    assert texts == ["NaN", "Infinity", "-Infinity", 0.1 + 0.2, None]
    for name in ("x.csv", "x.parquet"):
        assert dump(tmp_path, "--out", tmp_path / name).exit_code == 0
    with (tmp_path / "x.csv").open() as file:
        texts = [row["train/loss"] for row in csv.DictReader(file)]
    assert texts == ["NaN", "Infinity", "-Infinity", repr(0.1 + 0.2), ""]
    table = parquet.read_table(tmp_path / "x.parquet")
    assert [str(value) for value in table["train/loss"].to_pylist()] == [str(value) for value in given]
    assert table["time"].cast("int64") == table["time_ns"]


def test_odd_names_stay(tmp_path: Path) -> None:
    """A run's id and a value's name have whatever characters they have, in JSON and in CSV."""
    name = 'a "100 %s", é'
    write_job(tmp_path, 1, 1, name=name)
    [row] = dumped(tmp_path, "--kind", "rank")
    [of_csv] = csv.DictReader(io.StringIO(dump(tmp_path, "--kind", "rank", "--format", "csv").stdout))
    assert row["run"] == of_csv["run"] == name
    assert row[f"stream_mixing/modality_share/{name}"] == 0.75 == float(of_csv[f"stream_mixing/modality_share/{name}"])


def test_torn_records_are_counted(tmp_path: Path) -> None:
    """Torn records are left out and counted, and whole ones are written all the same."""
    rank = FakeRank(tmp_path, 0, 1)
    for step in range(1, 6):
        rank.write(step)
    with rank.ring.path.open("r+b") as file:
        file.seek(rank.ring.geometry.offset(2) + 48)
        file.write(b"\xff")
    (tmp_path / "rank00001-1.ring").write_bytes(b"no ring")
    result = dump(tmp_path)
    assert [json.loads(line)["step"] for line in result.stdout.splitlines()] == [1, 2, 4, 5]
    assert "rank00001-1.ring is not a ring file" in result.stderr
    assert "1 records were torn" in result.stderr
    assert result.exit_code == 0


def test_overwritten_records_are_not_torn(tmp_path: Path) -> None:
    """A ring that went round gives the records that it holds, and counts none of the overwritten ones as torn."""
    rank = FakeRank(tmp_path, 0, 1)
    for step in range(1, 101):
        rank.write(step, Kind.CLUSTER, {EVICTIONS: step})
    assert [row["ledger/evictions"] for row in dumped(tmp_path)] == list(range(37, 101))


def test_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """A reader that goes away, as `head` does, ends the dump without an error."""
    for rank in write_job(tmp_path, 8, 64):
        rank.ring.close(64, 64)
    command = f"{sys.executable} -m otel_train dump {tmp_path} | head -n 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (len(run.stdout.splitlines()), run.stderr) == (1, "")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_only_files_are_replaced(form: str, tmp_path: Path) -> None:
    """A pipe, and so a device, gets the bytes and stays what it is; a link stays and its file is replaced."""
    write_job(tmp_path, 1, 2)
    pipe, link, file = (tmp_path / name for name in ("pipe", "link", "file"))
    os.mkfifo(pipe)
    link.symlink_to(file)
    file.write_bytes(b"old")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    results = [dump(tmp_path, "--format", form, "--out", out).exit_code for out in (pipe, link)]
    assert (results, pipe.is_fifo(), link.is_symlink()) == ([0, 0], True, True)
    assert os.read(reader, 2**16) == file.read_bytes() != b"old"
    os.close(reader)


def test_stdout_has_a_path(tmp_path: Path) -> None:
    """A pipe that is named by /dev/stdout gets the rows, as stdout does."""
    write_job(tmp_path, 1, 2)
    command = (sys.executable, "-m", "otel_train", "dump", tmp_path)
    named = subprocess.run([*command, "--out", "/dev/stdout"], capture_output=True, timeout=60, check=True)
    assert (named.stdout, named.stderr) == (dump(tmp_path).stdout_bytes, b"")


def test_parquet_refuses_pipe(tmp_path: Path) -> None:
    """Parquet, whose writer seeks, says of a pipe that it needs a file."""
    write_job(tmp_path, 1, 1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    result = dump(tmp_path, "--format", "parquet", "--out", pipe)
    os.close(reader)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"dump --format parquet can't write to the pipe {pipe}; give --out FILE.parquet\n")


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
        (-(2**63), "1677-09-21T00:12:43.145224192Z"),
    ],
)
def test_time_keeps_nanoseconds(time_ns: int, text: str) -> None:
    """Any time that a ring may hold is written with all its nanoseconds."""
    assert rfc3339(time_ns) == text
