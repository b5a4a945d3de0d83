"""The session of a rank, without torch.distributed: what it records, refuses and survives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import otel_train
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import MixingMeter
from otel_train.ring import Kind, RingReader, ring_files

pytestmark = pytest.mark.usefixtures("external_sidecar")


def session(tmp_path: Path, **options: Any) -> otel_train.Telemetry:
    """Return a session of one process without a sidecar, which nobody waits for."""
    return otel_train.init(ring_dir=tmp_path / "rings", **{"close_timeout": 0.01, **options})


def test_disabled_session_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled session makes no directory and no process, and drains no interval."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    meter = MixingMeter(1, ["a"], {"a": 1})
    with session(tmp_path, sources=[meter]) as telemetry:
        assert telemetry.step(1, {"loss": 1.0}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.modes
def test_lone_process_is_cluster(tmp_path: Path) -> None:
    """Without torch.distributed a job is a cluster of one; steps between two log steps are in the interval."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    with session(tmp_path, sources=[meter], log_every=2) as telemetry:
        for step in range(1, 6):
            meter.pick(0)
            telemetry.step(step, {"loss": float(step)})
        latest = telemetry.latest
    assert latest is not None
    assert (latest[0], latest[1]["stream_mixing/picks"], latest[1]["loss"]) == (4, 2.0, 3.5)
    records, _, _ = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)
    # They are the same, so one record holds both. The last interval was not whole when the session ended.
    assert [(record.sequence, record.step, record.kind) for record in records] == [
        (0, 2, Kind.RANK),
        (0, 2, Kind.CLUSTER),
        (1, 4, Kind.RANK),
        (1, 4, Kind.CLUSTER),
        (2, 5, Kind.RANK),
        (2, 5, Kind.CLUSTER),
    ]


@pytest.mark.parametrize(
    ("key", "complaint"),
    [("ledger/evictions", "is one of otel_train's own"), ("train/cluster/loss", "marks cluster-wide values")],
)
def test_wrong_key_raises_first(key: str, complaint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong key raises at the first step; later it is dropped, with one warning."""
    with session(tmp_path) as telemetry, pytest.raises(ConfigurationError, match=complaint):
        telemetry.step(1, {key: 1.0})
    with session(tmp_path) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {"fine": 1.0} if step == 1 else {"fine": 1.0, key: 2.0})
        assert telemetry.latest is not None
        assert telemetry.latest[0] == 3
    assert len([record for record in caplog.records if repr(key) in record.getMessage()]) == 1


@pytest.mark.parametrize("again", [2, 1])
def test_old_step_is_not_recorded(again: int, tmp_path: Path) -> None:
    """A step that was made already makes no second record of that step."""
    with session(tmp_path) as telemetry:
        for step in (1, 2, again, 3):
            telemetry.step(step, {"x": float(step)})
    records, _, _ = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)
    assert [record.step for record in records if record.kind is Kind.RANK and not record.logged] == [1, 2, 3]


def test_forked_child_writes_nothing(tmp_path: Path) -> None:
    """A child of os.fork that steps, or exits as a program does, leaves its parent's ring alone."""
    with session(tmp_path) as telemetry:
        telemetry.step(1)
        child = os.fork()
        if not child:
            telemetry.step(2)
            telemetry.close()
            os._exit(0)
        os.waitpid(child, 0)
        reader = RingReader(ring_files(tmp_path / "rings")[0])
        assert (reader.progress.step, reader.progress.closed) == (1, False)


def test_disabled_session_ages_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ledger drops idle entries with telemetry off too: training does not depend on it."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ledger = otel_train.StateLedger((1,), capacity=4, max_idle_steps=1)
    ledger.store(["x"], torch.ones(1, 1))
    telemetry = session(tmp_path, sources=[ledger])
    for step in (1, 2, 3):
        telemetry.step(step)
    assert len(ledger) == 0


def test_full_disk_costs_records(tmp_path: Path) -> None:
    """A ring that can't be made is one warning, and the session goes on without it."""
    code = (
        "import otel_train, resource, sys\n"
        "sys.dont_write_bytecode = True\n"  # cut at the limit, a module's file would break each later import
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))\n"
        "with otel_train.init(ring_dir=sys.argv[1], blocking=True) as telemetry:\n"
        "    print(telemetry.step(1, {'loss': 2.0})['loss'])"
    )
    environment = {**os.environ, "OTEL_TRAIN_SIDECAR": "external"}
    command = [sys.executable, "-c", code, str(tmp_path / "rings")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "2.0"
    assert run.stderr.count("nothing is recorded on this rank") == 1


UUID = "53a3445f-bddf-4efd-b7bb-6a9d7307310e"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (("mine", "set", "saved", UUID), "mine"),
        ((None, "set", "saved", UUID), "set"),
        ((None, "", "saved", UUID), "saved"),
        ((None, "", "", UUID), UUID),
        ((None, "", "saved", "none"), "saved"),  # what torchrun says where none was given
    ],
)
def test_given_run_overrides_saved(
    ids: tuple[str | None, str, str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run id that is given overrides the saved one, and that overrides torchrun's."""
    argument, variable, saved, rendezvous = ids
    monkeypatch.setenv("OTEL_TRAIN_RUN_ID", variable)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", rendezvous)
    with session(tmp_path, run_id=argument) as telemetry:
        telemetry.load_state_dict({"run_id": saved})
        telemetry.step(1)
        assert telemetry.state_dict() == {"run_id": expected}
        assert RingReader(ring_files(tmp_path / "rings")[0]).identity.run_id == expected


def test_given_run_survives_meeting(tmp_path: Path) -> None:
    """A session that knows its ranks from the beginning keeps the given id over a saved one as well."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with session(tmp_path, run_id="mine") as telemetry:
            telemetry.load_state_dict({"run_id": "saved"})
            telemetry.step(1)
            assert telemetry.state_dict() == {"run_id": "mine"}
    finally:
        dist.destroy_process_group()


def test_wrong_state_is_refused(tmp_path: Path) -> None:
    """A state of something else, or one that is loaded after the first step, is refused."""
    with session(tmp_path) as telemetry:
        with pytest.raises(StateMismatchError, match="must have a 'run_id'"):
            telemetry.load_state_dict({"step": 3})
        telemetry.step(1)
        with pytest.raises(StateMismatchError, match="before the first step"):
            telemetry.load_state_dict({"run_id": "saved"})


def test_disabled_session_keeps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled session keeps the saved run's id, so that one attempt without telemetry does not cut a run in two."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = otel_train.init()
    telemetry.load_state_dict({"run_id": "saved"})
    assert telemetry.state_dict() == {"run_id": "saved"}
