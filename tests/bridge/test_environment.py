"""What surrounds a bridge: where it is started, its paths, the variables that it inherits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps, read_run
from otel_train.bridge.wandb_environment import neutral
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.bridge_processes import BridgeProcess
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.running_bridge import RunningBridge
from tests.support.step_requests import step_request


@pytest.mark.parametrize("given", ["state", "./link", "~/state", "outside/../link/below", "moved"])
def test_any_state_path_works(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, through links, from the home directory, its wandb folder a link: rows come after a chdir too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("real", "outside/deep", "elsewhere", "moved"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "moved" / "wandb").symlink_to(tmp_path / "elsewhere")
    running = RunningBridge(BridgeConfig(state=Path(given), listen="127.0.0.1:0", linger=0))
    monkeypatch.chdir(tmp_path / "outside" / "deep")
    running.send(step_request(1))
    running.wait(1)
    running.stop()
    monkeypatch.chdir(tmp_path)
    assert [row.values[STEP_KEY] for row in read_run(given, "run")] == [1]
    assert delivered_steps(given, "run") == 1


def test_job_variables_stay_outside_runs(tmp_path: Path) -> None:
    """A bridge that inherits a sweep's or a resumed run's environment keeps each run to itself, and says so once."""
    of_a_job = {
        "WANDB_SWEEP_ID": "s1",
        "WANDB_RUN_ID": "theirs",
        "WANDB_RESUME": "must",
        "WANDB_RUN_GROUP": "g",
        "WANDB_NAME": "n",
        "WANDB_MODE": "disabled",
        "WANDB_DISABLED": "true",
        "WANDB_DIR": str(tmp_path / "theirs"),
        "WANDB_SERVICE": "3-1-tcp-localhost-1",
        "WANDB_RESUME_FROM": "other?_step=3",
    }
    with BridgeProcess(tmp_path, environment=of_a_job) as bridge:
        bridge.send(*(step_request(step, run_id=run_id) for step in (1, 2) for run_id in ("a", "b")))
        for run_id in ("a", "b"):
            bridge.wait(2, run_id)
        assert bridge.stop() == 0
    for run_id in ("a", "b"):
        assert [row.values[STEP_KEY] for row in read_run(bridge.state, run_id)] == [1, 2]
    assert not (tmp_path / "theirs").exists()
    assert bridge.log.read_text().count("WANDB_RUN_ID") == 1


def test_identity_and_server_reach_wandb() -> None:
    """Server, key and entity stay; what is set meanwhile stays, what was taken comes back."""
    environ = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "u", "WANDB_ENTITY": "e", "WANDB_RUN_ID": "r", "HOME": "/"}
    with neutral(environ):
        assert sorted(environ) == ["HOME", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY"]
        environ["WANDB_SERVICE"] = "ours"
    assert (environ["WANDB_RUN_ID"], environ["WANDB_SERVICE"]) == ("r", "ours")


def bridge_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "otel_train", "bridge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)


def test_check_reports_missing_bridge(tmp_path: Path) -> None:
    """Its exit code is not all that a person sees."""
    address = f"127.0.0.1:{free_port()}"
    answer = bridge_command("--check", "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"no bridge serves at {address}" in answer.stderr
    with Bridge(BridgeConfig(state=tmp_path, listen=address)):
        assert bridge_command("--check", "--listen", address).stdout == f"the bridge at {address} serves\n"


def test_taken_port_is_one_line(start: Any, tmp_path: Path) -> None:
    """No line of gRPC's own comes before it."""
    address = start().address
    answer = bridge_command("--state", str(tmp_path / "other"), "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"can't listen on {address}: Address already in use" in answer.stderr
