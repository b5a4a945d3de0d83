"""The history of wandb's files, which is gathered from a spool, is that of a plain reading."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.bridge import WandbFileError
from otel_train.bridge.wandb_file import read_history, wandb_files
from otel_train.catalogue import ATTEMPT_KEY, rows
from otel_train.read.history import Track
from otel_train.read.row_spool import BLOCK_ROWS, RowSpool
from otel_train.read.wandb import read_file, read_state
from tests.support.train_job import add_record, write_wandb_file

STEP = rows.STEP.wandb_key
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-320, 10**400, -(10**400), True, None, "1.5", [2.0]]),
    st.floats(),
    st.integers(),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            STEP: st.one_of(st.integers(-1, 8), st.sampled_from([4.6, math.nan, math.inf, "3", 10**30])),
            ATTEMPT_KEY: st.sampled_from([1, 2]),
            "train/loss": VALUES,
            'a"b.\\é': VALUES,
            "eval/loss": VALUES,
            "_step": st.integers(0, 12),
        },
    ),
    max_size=14,
)

REMADE = [
    {STEP: 2, ATTEMPT_KEY: 1, "train/loss": 1.0},
    {STEP: 2, ATTEMPT_KEY: 1, "eval/loss": 5.0},
    {STEP: 2, ATTEMPT_KEY: 2, "train/loss": 2.0},
]
"""A step that another attempt makes anew, without what was logged beside it before."""


def plain(state: Path) -> Track:
    """Return the cluster's track, of rows that are all in memory."""
    logged = [row for file in wandb_files(state, "a") for row in read_history(file)]
    track, attempt, newest = Track(), math.nan, -1
    for row in sorted(logged, key=lambda row: row.ordinal):
        step = row.values.get(STEP)
        if not isinstance(step, int | float) or not abs(step) < 1e18:
            continue
        numbers = {
            key: float(Decimal(value))  # infinite where a float has no room
            for key, value in row.values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        if numbers.get(ATTEMPT_KEY, math.nan) != attempt:
            attempt, newest = numbers.get(ATTEMPT_KEY, math.nan), -1
            track.begin_attempt()
        time_ns = round(row.timestamp * 1e9)
        (track.add if round(step) > newest else track.merge)(round(step), time_ns, numbers)
        newest = max(newest, round(step))
    return track


@given(files=st.lists(ROWS, min_size=1, max_size=3), torn=st.integers(0, 40))
@example(files=[REMADE], torn=0)
@settings(max_examples=25)
def test_equals_plain_reading(files: list[list[dict[str, Any]]], torn: int) -> None:
    """Attempts, values logged beside steps, missing keys, odd values, several files, a torn end: all are the same."""
    with TemporaryDirectory() as folder:
        for number, logged in enumerate([[{STEP: 1}], *files]):
            path = Path(folder) / "wandb" / f"offline-run-{number}" / "run-a.wandb"
            write_wandb_file(path, logged)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - torn])
        track, expected = read_state(Path(folder), "a").cluster, plain(Path(folder))
        assert (list(track.steps), list(track.times_ns)) == (expected.steps, expected.times_ns)
        assert track.merged == expected.merged
        assert track.values.keys() == expected.values.keys()
        for key in expected.values:
            assert repr(list(track.column(key))) == repr(expected.column(key)), key


def test_long_file_is_whole(tmp_path: Path) -> None:
    """Records that lie in several blocks of a file, and keys that come late, are each read once."""
    logged = [
        {STEP: step, "train/loss": step / 3, f"late{step // 1000}": 1, "text": "x" * (400_000 if step == 700 else 40)}
        for step in range(2500)
    ]
    write_wandb_file(tmp_path / "wandb" / "offline-run-1" / "run-a.wandb", logged)
    track, expected = read_state(tmp_path, "a").cluster, plain(tmp_path)
    assert list(track.steps) == expected.steps
    assert track.values.keys() == expected.values.keys()
    assert all(repr(list(track.column(key))) == repr(column) for key, column in expected.values.items())


def test_end_is_found_behind_long_records(tmp_path: Path) -> None:
    """The exit code of a long file is read from its end, which begins within a record; a later file has none."""
    path = tmp_path / "wandb" / "offline-run-1" / "run-a.wandb"
    write_wandb_file(path, [{STEP: step, "text": "x" * 200_000} for step in range(4)])
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    data = bytearray(path.read_bytes())
    add_record(data, messages.Record(exit=messages.RunExitRecord(exit_code=3)).SerializeToString())
    path.write_bytes(data)
    assert read_file(path).exit_code == read_state(tmp_path, "a").exit_code == 3
    write_wandb_file(tmp_path / "wandb" / "offline-run-2" / "run-a.wandb", [{STEP: 4, "_step": 4}])
    assert read_state(tmp_path, "a").exit_code is None


def test_damage_is_same_error(tmp_path: Path) -> None:
    """A flipped bit is the error that a plain reading raises, wherever it is."""
    path = tmp_path / "files" / "run-a.wandb"
    write_wandb_file(path, [{STEP: step, "train/loss": step / 3, "text": "x" * 500} for step in range(700)])
    data, numbers = path.read_bytes(), random.Random(0)
    for _ in range(40):
        at = numbers.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << numbers.randrange(8)]) + data[at + 1 :])
        with pytest.raises(WandbFileError) as expected:
            list(read_history(path))
        with pytest.raises(WandbFileError) as raised:
            read_file(path)
        assert str(raised.value) == str(expected.value)


def test_spool_has_many_blocks() -> None:
    """A key has its values in the rows that gave them, through blocks with it and without it, written or not."""
    spool, expected = RowSpool(), dict[int, float]()
    for row in range(3 * BLOCK_ROWS + 7):
        is_given = row % 3 == 0 and not BLOCK_ROWS <= row < 2 * BLOCK_ROWS
        spool.know(["a"])
        spool.add(row, row, {"a": float(row)} if is_given else {"b": 1.0})
        if is_given:
            expected[row] = float(row)
        if row % 1000 == 0 or row % BLOCK_ROWS == BLOCK_ROWS - 1:
            spool.take(b"", 0)
            column = spool.column("a")
            assert {at: value for at, value in enumerate(column) if not math.isnan(value)} == expected
            assert len(column) == row + 1
