"""A fit whose steps end by a logger's calls: which of them end a step, and which stand beside it."""

from __future__ import annotations

import doctest
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from otel_train import SourceMeter
from otel_train.integrations import logged_fit, logging_ranks
from otel_train.integrations.fit_session import FitSession
from otel_train.integrations.logged_fit import LoggedFit
from otel_train.ring import Kind, RingReader, ring_files


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], LoggedFit]:
    """Return what makes a fit whose rings are in the test's folder, without a sidecar."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    return lambda: LoggedFit(FitSession(ring_dir=tmp_path / "rings", close_timeout=0.01))


def readers(folder: Path) -> list[RingReader]:
    """Return the rings in their order."""
    return [RingReader(path) for path in ring_files(folder / "rings")]


def recorded(folder: Path) -> list[tuple[int, float]]:
    """Return the steps and losses of all rings."""
    return [
        (record.step, reader.layout.by_key(*reader.layout.split(record.values))["loss"])
        for reader in readers(folder)
        for record in reader.read(0, sys.maxsize)[0]
        if record.kind is not Kind.CLUSTER
    ]


@pytest.mark.parametrize(
    ("calls", "rows"),
    [
        ([(1, 2.0), (2, 4.0), (10, 6.0)], [(1, 2.0), (2, 4.0), (10, 6.0)]),
        ([(0, 1.0), (0, 3.0), (1, 4.0), (1, 8.0)], [(0, 2.0), (1, 6.0)]),
        ([(None, 2.0), (None, 4.0)], [(1, 2.0), (2, 4.0)]),
        ([(3.0, 2.0), (True, 9.0), (4, 4.0)], [(3, 2.0), (4, 4.0)]),
    ],
    ids=["larger", "again", "counted", "by value"],
)
def test_calls_end_their_steps(
    make: Callable[[], LoggedFit], tmp_path: Path, calls: list[tuple[int | None, float]], rows: list[tuple[int, float]]
) -> None:
    """Each larger step has a row, with the mean of all calls that have it."""
    fit = make()
    for step, loss in calls:
        fit.log({"loss": loss} if step is not True else {}, step)
    fit.end()
    assert recorded(tmp_path) == rows


def test_added_values_join_next_step(make: Callable[[], LoggedFit], tmp_path: Path) -> None:
    """What is added before the first call, and before others, counts in the step that the next one ends."""
    fit = make()
    for step in (1, 2):
        fit.add({"loss": 2.0 * step}, weight=3)
        fit.add({"loss": 6.0 * step}, weight=1)
        fit.log({}, step)
    fit.end()
    assert recorded(tmp_path) == [(1, 3.0), (2, 6.0)]


@pytest.mark.parametrize(("steps", "runs"), [((3, 4), 1), ((1, 2), 2)], ids=["following", "over"])
def test_later_session_goes_on(
    make: Callable[[], LoggedFit], tmp_path: Path, steps: tuple[int, int], runs: int
) -> None:
    """A session whose first step follows is of the same run; one that starts over is a run of its own."""
    fit = make()
    for part in ((1, 2), steps):
        for step in part:
            fit.log({"loss": 1.0}, step)
        fit.end()
    assert len({reader.identity.run_id for reader in readers(tmp_path)}) == runs


def test_loaded_state_is_gone_on_from(make: Callable[[], LoggedFit], tmp_path: Path) -> None:
    """A new process' fit goes on in the run of the state, and counts from its step; pickling it keeps that."""
    before, after = make(), make()
    before.log({"loss": 1.0})
    before.log({"loss": 1.0})
    state = before.state_dict()
    before.end()
    after.load_state_dict(state)
    after = pickle.loads(pickle.dumps(after))  # our own
    assert after.state_dict() == state
    after.log({"loss": 3.0})
    after.end()
    assert sorted(recorded(tmp_path)) == [(1, 1.0), (2, 1.0), (3, 3.0)]
    assert len({reader.identity.run_id for reader in readers(tmp_path)}) == 1


def test_loaded_meter_keeps_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is counted between a checkpoint's load and the first value is among the first step's picks."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    meters = [SourceMeter({"code": 1.0, "prose": 1.0}) for _ in range(2)]
    fits = [LoggedFit(FitSession(meter=meter, ring_dir=tmp_path / "rings", close_timeout=0.01)) for meter in meters]
    tag = meters[1].tag("code")
    fits[0].log({"loss": 1.0}, 1)
    fits[1].load_state_dict(fits[0].state_dict(gathered=True))
    fits[0].end()
    meters[1].count([tag({"x": 1}), tag({"x": 2})])
    fits[1].log({"loss": 1.0}, 2)
    fits[1].end()
    records = [record for reader in readers(tmp_path) for record in reader.read(0, sys.maxsize)[0]]
    picks = {record.step: record.by_key()["stream_mixing/picks"] for record in records}
    assert picks == {1: 0.0, 2: 2.0}


def test_rollback_begins_another_attempt(make: Callable[[], LoggedFit], tmp_path: Path) -> None:
    """A state that is loaded while steps are made begins an attempt in the same run, which makes steps again."""
    fit = make()
    fit.log({"loss": 1.0}, 1)
    state = fit.state_dict()
    fit.log({"loss": 9.0}, 2)
    fit.load_state_dict(state)
    fit.log({"loss": 3.0}, 2)
    fit.end()
    assert recorded(tmp_path) == [(1, 1.0), (2, 9.0), (2, 3.0)]
    assert len({reader.identity.attempt for reader in readers(tmp_path)}) == 2
    assert len({reader.identity.run_id for reader in readers(tmp_path)}) == 1


@pytest.mark.parametrize(
    ("environment", "warns"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1"}, False),
    ],
    ids=["several meant", "one", "launched one"],
)
def test_lone_process_is_told(
    environment: Mapping[str, str], warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that `accelerate launch --cpu --num_processes 2` has started alone says how to start more."""
    for name in ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logging_ranks.logging_group(alone=False) is None
    assert ("torchrun --nproc-per-node" in caplog.text) == warns


def test_logged_fit_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in its docstring says what happens."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    assert doctest.testmod(logged_fit).failed == 0
