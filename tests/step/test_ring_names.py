"""Where a run's rings are: in a directory that no other run has, which the job's own moves do not change."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import otel_train
from otel_train.exceptions import ConfigurationError
from otel_train.ring import ring_files
from otel_train.step import first_step
from otel_train.step.environment import Environment

pytestmark = pytest.mark.usefixtures("external_sidecar")


def test_similar_runs_share_no_directory() -> None:
    """Runs whose ids differ in characters that file names lack have directories of their own, and so sidecars."""
    hashed = Environment().ring_directory("a/b").name
    similar = ["a/b", "a_b", "a.b", "a b", "A_b", "\u00e4_b", "a\u0308_b", "_b", ".", "..", "../a_b", "-", "~", hashed]
    similar += ["x" * 64, "x" * 65, "x" * 66, "x" * 64 + "/", "a_b" + "." * 3, "\u00e9" * 128, "CON", "con"]
    directories = {Environment().ring_directory(run_id) for run_id in similar}
    assert len(directories) == len(similar)
    assert {path.parent for path in directories} == {Environment().ring_directory("plain").parent}
    assert max(len(path.name) for path in directories) <= 64


def test_plain_run_names_directory() -> None:
    """A run id that can be a file's name is its directory's name, where people look for it."""
    assert Environment().ring_directory("my-run_7").name == "my-run_7"


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "argument"])
@pytest.mark.parametrize("chosen", ["rings", "./x/../rings", "link/rings", "~/rings"])
def test_chosen_directory_stays(chosen: str, variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chosen directory, relative, through a link or below the home, stays the same when the job changes its own."""
    for name in ("job", "other", "job/x"):
        (tmp_path / name).mkdir()
    (tmp_path / "job/link").symlink_to(tmp_path / "job")
    monkeypatch.setenv("HOME", str(tmp_path / "job"))
    monkeypatch.setenv("OTEL_TRAIN_RING_DIR", chosen if variable else "")
    monkeypatch.chdir(tmp_path / "job")
    telemetry = otel_train.init(ring_dir=None if variable else chosen, close_timeout=0.0)
    monkeypatch.chdir(tmp_path / "other")
    (tmp_path / "job/link").unlink()
    with telemetry:
        telemetry.step(1)
    assert telemetry.ring_dir == tmp_path / "job/rings"
    assert len(ring_files(tmp_path / "job/rings")) == 1


def test_lost_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative directory is refused where the working directory is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="OTEL_TRAIN_RING_DIR can't be found, got 'rings'"):
        otel_train.init(ring_dir="rings")


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "nfs4"])
def test_disk_rings_are_kept_writable(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a thread that ends with the session; rings across a network are one warning that says what to set."""
    monkeypatch.setattr(first_step, "file_system_of", lambda _: kind)
    before = {*threading.enumerate()}
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.0) as telemetry:
        for step in (1, 2):
            telemetry.step(step)
        started = [thread for thread in {*threading.enumerate()} - before if thread.name == "otel_train ring"]
    for thread in started:
        thread.join(30)
    assert [thread.is_alive() for thread in started] == [False] * (kind != "tmpfs")
    told = [message for message in caplog.messages if "file system of another machine (nfs4)" in message]
    assert len(told) == (kind == "nfs4")
    assert all(str(tmp_path) in message and "OTEL_TRAIN_RING_DIR" in message for message in told)
