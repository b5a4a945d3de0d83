"""`otel-train sync`: offline runs reach a server, each row once, however often it is called."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import wandb_files
from otel_train.bridge.safe_names import safe_id
from otel_train.bridge.upload import BEGUN, UPLOAD_LOCK_FILE, UPLOADED, closed_segments
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.bridge_processes import BridgeProcess
from tests.support.commands import run_otel_train
from tests.support.environment import clean_environment
from tests.support.step_requests import step_request
from tests.support.wandb_server import FakeWandb


def test_open_file_is_uploaded_later(server: FakeWandb, tmp_path: Path) -> None:
    """A file that is still written is left, and uploaded after its run's end; a further call uploads nothing."""
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(step_request(1), step_request(2))
        bridge.wait(2)
        assert "1 files are still written" in run_otel_train("sync", bridge.state, **server.environment).stdout
        assert server.history("run") == []
        assert bridge.stop() == 0
        assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
        assert server.steps("run") == [1, 2]
        bridge.start()
        bridge.send(step_request(3))
        bridge.wait(3)
        assert bridge.stop() == 0
    assert "1 of them new" in run_otel_train("sync", bridge.state, **server.environment).stdout
    requests_before = server.requests
    assert run_otel_train("sync", bridge.state, **server.environment).stdout == "everything is uploaded\n"
    assert (server.steps("run"), server.requests) == ([1, 2, 3], requests_before)
    assert len(wandb_files(bridge.state, "run")) == 2  # and none more


@pytest.mark.faults
def test_interrupted_upload_goes_on(server: FakeWandb, start: Any) -> None:
    """A later call completes an upload that the server refused, or that was killed before it marked the file."""
    bridge = start()
    run_id = "a b/<c>"
    bridge.send(*(step_request(step, run_id=run_id) for step in (1, 2)))
    bridge.wait(2, run_id)
    bridge.stop()
    server.status = HTTPStatus.UNAUTHORIZED
    refused = run_otel_train("sync", bridge.state, **server.environment)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    server.status = None
    assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
    (file,) = wandb_files(bridge.state, run_id)
    file.with_name(f"{file.name}.synced").unlink()
    assert "0 of them new" in run_otel_train("sync", bridge.state, **server.environment).stdout
    assert server.steps(safe_id(run_id)) == [1, 2]


def test_several_folders_have_one_run(server: FakeWandb, tmp_path: Path) -> None:
    """A run whose attempts had a bridge each is uploaded from each folder, in any order, without loss or repetition."""
    states = []
    for attempt in (1, 2):
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        with BridgeProcess(folder) as bridge:
            for step in (2 * attempt - 1, 2 * attempt):
                bridge.send(step_request(step, attempt=attempt))
            bridge.wait(2)
            assert bridge.stop() == 0
        states.append(bridge.state)
    first, second = states
    for state, steps in ((second, [3, 4]), (first, [3, 4, 1, 2]), (second, [3, 4, 1, 2]), (first, [3, 4, 1, 2])):
        assert run_otel_train("sync", state, **server.environment).returncode == 0
        assert server.steps("run") == steps
    bridge.start()
    bridge.send(step_request(5, attempt=2))
    bridge.wait(3)
    assert bridge.stop() == 0
    (file,) = wandb_files(first, "run")
    file.with_name(f"{file.name}.synced").unlink()
    for state in (first, second):  # of the first one all is there, though nothing marks it
        assert run_otel_train("sync", state, **server.environment).returncode == 0
    assert server.steps("run") == [3, 4, 1, 2, 5]
    assert [row["_step"] for row in server.history("run")] == [0, 1, 2, 3, 4]
    file.with_name(f"{file.name}.synced").write_bytes(BEGUN)
    unclear = run_otel_train("sync", first, **server.environment)
    assert (unclear.returncode, server.steps("run")) == (1, [3, 4, 1, 2, 5])
    assert "was interrupted" in unclear.stderr


def test_second_upload_is_refused(server: FakeWandb, start: Any) -> None:
    """While one call uploads, another one says so and sends nothing: each would send the other one's rows again."""
    bridge = start()
    bridge.send(step_request(1))
    bridge.wait(1)
    bridge.stop()
    with (bridge.state / UPLOAD_LOCK_FILE).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = run_otel_train("sync", bridge.state, **server.environment)
        assert run_otel_train("sync", bridge.state, "--dry-run").returncode == 0
    assert (second.returncode, server.requests) == (1, 0)
    assert f"another sync uploads the files of {bridge.state}" in second.stderr
    assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
    assert server.steps("run") == [1]


def test_rows_after_wandb_sync_are_uploaded(server: FakeWandb, tmp_path: Path) -> None:
    """`wandb sync` of a run that is still open marks its file as uploaded; its later rows are uploaded too."""
    environment = clean_environment(**server.environment)
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(step_request(1))
        bridge.wait(1)
        (file,) = wandb_files(bridge.state, "run")
        command = [str(Path(sys.executable).parent / "wandb"), "sync", str(file.parent)]
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=True)
        bridge.send(step_request(2))
        bridge.wait(2)
        assert bridge.stop() == 0
    assert server.steps("run") == [1]
    assert "1 of them new" in run_otel_train("sync", bridge.state, **server.environment).stdout
    assert server.steps("run") == [1, 2]
    assert run_otel_train("sync", bridge.state, **server.environment).stdout == "everything is uploaded\n"


def test_online_continuation_is_uploaded_once(server: FakeWandb, tmp_path: Path) -> None:
    """Offline rows that something else has uploaded are not sent again after the bridge has gone on online."""
    for step, mode in ((1, "offline"), (2, "online")):
        with BridgeProcess(tmp_path, "--wandb-mode", mode, environment=server.environment) as bridge:
            bridge.send(step_request(step))
            bridge.wait(step)
            assert bridge.stop() == 0
        if mode == "offline":
            assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
            (file,) = wandb_files(bridge.state, "run")
            file.with_name(f"{file.name}.synced").unlink()  # as of a copy of the folder that was uploaded
    assert "0 of them new" in run_otel_train("sync", bridge.state, **server.environment).stdout
    assert server.steps("run") == [1, 2]


def test_deleted_run_stops_no_other(server: FakeWandb, start: Any) -> None:
    """A run that somebody has deleted in wandb is named in one line, and the others are uploaded."""
    bridge = start()
    for run_id in ("gone", "later"):
        bridge.send(step_request(1, run_id=run_id))
        bridge.wait(1, run_id)
    bridge.stop()
    server.deleted.add("gone")
    answer = run_otel_train("sync", bridge.state, **server.environment)
    assert (answer.returncode, server.steps("later")) == (1, [1])
    assert "run gone was previously created and deleted" in answer.stderr.splitlines()[-1]


@pytest.mark.faults
def test_untaken_rows_stay_unmarked(server: FakeWandb, start: Any) -> None:
    """Rows before those that the server has are not marked as uploaded; the error says what to do, other runs go on."""
    bridge = start()
    for run_id in ("run", "run-after"):
        bridge.send(step_request(1, run_id=run_id))
        bridge.wait(1, run_id)
    bridge.stop()
    server.add("run", {"_step": 5, STEP_KEY: 6})
    answer = run_otel_train("sync", bridge.state, **server.environment)
    (file,) = wandb_files(bridge.state, "run")
    assert answer.returncode == 1
    assert f"wandb sync {file.parent}" in answer.stderr.splitlines()[-1]
    assert not file.with_name(f"{file.name}.synced").exists()
    assert server.steps("run-after") == [1]


def test_dry_run_sends_nothing(start: Any) -> None:
    """A dry run prints what would be uploaded, without marked files, and sends nothing."""
    bridge = start()
    bridge.send(step_request(1), step_request(1, run_id="other"))
    for run_id in ("run", "other"):
        bridge.wait(1, run_id)
    bridge.stop()
    (file,) = wandb_files(bridge.state, "other")
    file.with_name(f"{file.name}.synced").write_bytes(UPLOADED)
    with FakeWandb() as server:
        assert (
            run_otel_train("sync", bridge.state, "--dry-run", **server.environment).stdout
            == "run run: 1 rows in 1 files would be uploaded\n"
        )
        assert server.requests == 0


@pytest.mark.faults
def test_continued_run_closes_file(tmp_path: Path) -> None:
    """The file of a killed bridge counts as closed when its run goes on in a later file."""
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(step_request(1))
        bridge.wait(1)
        bridge.kill()
        assert [*closed_segments(bridge.state)[0]] == ["run"]
        bridge.start()
        bridge.send(step_request(2))
        bridge.wait(2)
        closed, left = closed_segments(bridge.state)
        assert ([[row.ordinal for row in segment.rows] for segment in closed["run"]], left) == ([[0]], 1)


def test_missing_folder_is_an_error(tmp_path: Path, server: FakeWandb) -> None:
    """A state directory that does not exist is an error that names it."""
    answer = run_otel_train("sync", tmp_path / "nosuch", **server.environment)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert "nosuch holds no wandb folder" in answer.stderr


def test_bridge_without_runs_is_uploaded(start: Any) -> None:
    """The state directory of a bridge that has had no run yet is no error: there is nothing to upload."""
    answer = run_otel_train("sync", start().state)
    assert (answer.returncode, answer.stdout) == (0, "everything is uploaded\n")
