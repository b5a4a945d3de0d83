"""The session of a fit: begun, ended, copied, saved and gone on with, by real sessions without a trainer."""

from __future__ import annotations

import copy
import doctest
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

import otel_train
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.integrations import fit_session
from otel_train.integrations.fit_session import FitSession
from otel_train.ring import End, Kind, RingReader, ring_files

WEIGHTS = {"code": 1.0, "prose": 3.0}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FitSession]:
    """Return what makes a fit session whose rings are in the test's folder, without a sidecar."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    return lambda **options: FitSession(**{"ring_dir": tmp_path / "rings", "close_timeout": 0.01, **options})


def rings(folder: Path) -> list[RingReader]:
    """Return the rings of the sessions so far, in their order."""
    readers = [RingReader(path) for path in ring_files(folder / "rings")]
    return sorted(readers, key=lambda reader: reader.identity.attempt)


def fit(session: FitSession, *steps: int) -> None:
    """Train some steps as a fit."""
    session.begin(step=steps[0] - 1)
    for step in steps:
        session.add({"train/loss": float(step)}, weight=2)
        session.step(step)
    session.end()


def interrupt(session: FitSession) -> None:
    """End a session as a trainer does whose training is interrupted."""
    try:
        raise KeyboardInterrupt
    finally:
        session.end()


def recorded(reader: RingReader) -> list[int]:
    """Return the steps that a ring has."""
    return [record.step for record in reader.read(0, sys.maxsize)[0] if record.kind is Kind.RANK]


@pytest.mark.parametrize(
    ("second", "runs"), [((3, 4), 1), ((4, 5), 1), ((1, 2), 2)], ids=["goes on", "goes on later", "starts over"]
)
def test_each_fit_is_session(made: Any, tmp_path: Path, second: tuple[int, ...], runs: int) -> None:
    """Each fit has a ring of its own; one that goes on where the one before ended is in the same run."""
    session = made()
    fit(session, 1, 2)
    fit(session, *second)
    assert [recorded(reader) for reader in rings(tmp_path)] == [[1, 2], [*second]]
    assert {reader.progress.end for reader in rings(tmp_path)} == {End.CLOSED}
    assert len({reader.identity.run_id for reader in rings(tmp_path)}) == runs


def test_named_run_stays_one(made: Any, tmp_path: Path) -> None:
    """Fits that start over are attempts of the run that the user has named."""
    session = made(run_id="mine")
    fit(session, 1, 2)
    fit(session, 1, 2)
    assert [reader.identity.run_id for reader in rings(tmp_path)] == ["mine", "mine"]


def test_begin_ends_open_session(made: Any, tmp_path: Path) -> None:
    """A session that a failed fit has left open is ended by the next fit; to end twice changes nothing."""
    session = made()
    session.begin()
    session.step(1, {"train/loss": 1.0})
    fit(session, 2)
    session.end()
    assert [(recorded(reader), reader.progress.closed) for reader in rings(tmp_path)] == [([1], True), ([2], True)]


def test_exception_is_recorded(made: Any, tmp_path: Path) -> None:
    """A session that ends where an exception is handled says its name; the next one says none."""
    session = made()
    session.begin()
    session.step(1, {"train/loss": 1.0})
    with pytest.raises(KeyboardInterrupt):
        interrupt(session)
    fit(session, 2)
    assert [reader.error for reader in rings(tmp_path)] == ["KeyboardInterrupt", ""]


def test_calls_outside_warn_once(made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What comes before the first fit or after the last one is not recorded, and warned of once."""
    session = made()
    session.add({"train/loss": 9.0})
    fit(session, 1)
    session.add({"train/loss": 9.0})
    session.log({"eval/loss": 9.0})
    assert session.step(2) is None
    assert caplog.messages == [fit_session._OUTSIDE % call for call in ("add()", "log()", "step(2)")]
    assert [recorded(reader) for reader in rings(tmp_path)] == [[1]]


def test_logged_values_keep_their_step(made: Any, tmp_path: Path) -> None:
    """What belongs to no step's end is recorded beside the steps, under its step or the newest one."""
    session = made()
    session.begin(step=4)
    session.log({"eval/loss": 1.0})
    session.step(5, {"train/loss": 5.0})
    session.log({"eval/loss": 2.0}, weight=3)
    session.log({"eval/loss": 3.0}, step=2)
    session.end()
    (reader,) = rings(tmp_path)
    records = [record for record in reader.read(0, sys.maxsize)[0] if record.kind is not Kind.RANK]
    logged = {record.step: record.by_key()["eval/loss"] for record in records if record.logged}
    assert logged == {4: 1.0, 5: 2.0, 2: 3.0}
    assert [record.step for record in records if not record.logged] == [5]


def test_checkpoint_goes_on_in_run(made: Any, tmp_path: Path) -> None:
    """A state goes on in its run, whenever it was saved: within a fit, after it, or before the fit that it was loaded
    for.
    """
    session = made()
    assert session.state_dict() == {"run_id": "", "step": 0}
    session.begin()
    session.step(1, {"train/loss": 1.0})
    states = [session.state_dict()]
    session.end()
    states.append(session.state_dict())
    for number, state in enumerate(states):
        other = made()
        other.load_state_dict(state)
        assert other.state_dict() == state
        fit(other, number + 2)
        assert other.state_dict() == {**state, "step": number + 2}
    assert len({reader.identity.run_id for reader in rings(tmp_path)}) == 1
    assert [recorded(reader) for reader in rings(tmp_path)] == [[1], [2], [3]]


def test_state_is_loaded_once(made: Any, tmp_path: Path) -> None:
    """A state counts for one fit: the next one that starts over is a run of its own again."""
    session = made()
    session.load_state_dict({"run_id": "before"})
    fit(session, 6, 7)
    fit(session, 1)
    first, second = (reader.identity.run_id for reader in rings(tmp_path))
    assert (first, second == "before") == ("before", False)


def test_evaluation_changes_no_fit(made: Any, tmp_path: Path) -> None:
    """An evaluation outside of a fit, of a checkpoint of another run too, is recorded there, and the fit goes on."""
    session = made()
    fit(session, 1, 2)
    evaluate(session)
    session.load_state_dict({"run_id": "other", "step": 1})
    evaluate(session)
    assert session.last_step == 2
    session.begin(step=2)
    evaluate(session)
    session.step(3)
    session.end()
    assert [recorded(reader) for reader in rings(tmp_path)] == [[1, 2], [2], [1], [2, 3]]
    first, *others = [reader.identity.run_id for reader in rings(tmp_path)]
    assert others == [first, "other", first]


def evaluate(session: FitSession) -> None:
    """Log the value of an evaluation."""
    with session.evaluating():
        session.log({"eval/loss": 1.0}, weight=3)


@pytest.mark.parametrize("state", [None, {}, {"run_id": 3}])
def test_wrong_state_is_refused(made: Any, state: Any) -> None:
    """What is no state is refused when it is loaded."""
    with pytest.raises(StateMismatchError, match="must have a 'run_id'"):
        made().load_state_dict(state)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda session: pickle.loads(pickle.dumps(session))])
@pytest.mark.parametrize("is_open", [False, True])
def test_copy_begins_own_session(made: Any, tmp_path: Path, copied: Any, is_open: bool) -> None:
    """A copy, as spawned processes get one, has no session of another process, and its own fits."""
    session = made()
    if is_open:
        session.begin()
        session.step(1, {"train/loss": 1.0})
    other = copied(session)
    assert other.telemetry is None
    fit(other, 2)
    session.step(3, {"train/loss": 1.0})
    session.end()
    assert [recorded(reader) for reader in rings(tmp_path)] == ([[1, 3], [2]] if is_open else [[2]])
    assert len({reader.identity.run_id for reader in rings(tmp_path)}) == 1


def test_forked_child_begins_own(made: Any, tmp_path: Path) -> None:
    """A child that is forked within a fit leaves it to its parent, and may begin one of its own."""
    session = made()
    session.begin()
    session.step(1, {"train/loss": 1.0})
    child = os.fork()
    if not child:
        fit(session, 5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    session.step(2, {"train/loss": 1.0})
    session.end()
    assert sorted(recorded(reader) for reader in rings(tmp_path)) == [[1, 2], [5]]


def test_own_telemetry_stays_open(tmp_path: Path) -> None:
    """A session of the user's own takes the steps of all fits, and is not ended by any."""
    with otel_train.init(ring_dir=tmp_path / "rings", close_timeout=0.01) as telemetry:
        session = FitSession(telemetry=telemetry)
        fit(session, 1, 2)
        session.load_state_dict(session.state_dict())
        fit(session, 3)
        telemetry.step(4)
    assert [recorded(reader) for reader in rings(tmp_path)] == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_evry": 2}, "log_evry"),
        ({"telemetry": otel_train.Telemetry(), "log_every": 2}, "log_every and telemetry were given"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """An option that `init` does not have is refused when the trainer is made, not in the middle of it."""
    with pytest.raises(ConfigurationError, match=message):
        FitSession(**options)


def test_disabled_fit_records_nothing(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where telemetry is off a fit costs nothing and leaves nothing."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    session = made()
    fit(session, 1, 2)
    assert session.state_dict() == {"run_id": "", "step": 2}
    assert list(tmp_path.iterdir()) == []


def test_session_examples_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the docstring gives what it says."""
    monkeypatch.setenv("OTEL_TRAIN_RING_DIR", str(tmp_path))
    assert doctest.testmod(fit_session).failed == 0


@pytest.mark.ranks(2)
@pytest.mark.parametrize("gathered", [False, True])
def test_state_has_meters(job: Any, gathered: bool) -> None:
    """Each rank goes on with its own meter, from a checkpoint of its own or one of all, and in the run of the first."""
    picks = [3, 5][job.rank]
    session = ranked_fit(job, process_group=lambda: dist.group.WORLD)
    for _ in range(picks):
        session.meter.pick(0)
    session.step(1, {"train/loss": 1.0})
    for _ in range(picks):
        session.meter.pick(1)
    state = session.state_dict(gathered=gathered)
    session.end()
    run_id = state["run_id"]
    other = ranked_fit(job, state=state)
    assert other.telemetry.step(2)["stream_mixing/picks"] == 8
    other.end()
    assert other.state_dict()["run_id"] == run_id


@pytest.mark.ranks(2)
def test_state_of_other_ranks(job: Any) -> None:
    """The meters of a checkpoint of three ranks are divided among two."""
    states = []
    for picks in (1, 2, 4):
        meter = otel_train.MixingMeter(2, ["code", "prose"], WEIGHTS)
        for slot, source in enumerate(WEIGHTS):
            meter.open(slot, source)
        for _ in range(picks):
            meter.pick(0)
        states.append(meter.state_dict())
    session = ranked_fit(job, state={"run_id": "of-three", "meters": states})
    values = session.telemetry.step(1)
    session.end()
    assert values["stream_mixing/picks"] == 7
    assert session.state_dict()["run_id"] == "of-three"


def ranked_fit(job: Any, state: Any = None, **options: Any) -> Any:
    """Begin a fit of two ranks with a meter of two slots."""
    meter = otel_train.MixingMeter(2, ["code", "prose"], WEIGHTS)
    for slot, source in enumerate(WEIGHTS):
        meter.open(slot, source)
    session = FitSession(meter=meter, ring_dir=job.folder / "rings", blocking=True, close_timeout=0.01, **options)
    if state is not None:
        session.load_state_dict(state)
    session.begin(step=0 if state is None else meter.step)
    return session
