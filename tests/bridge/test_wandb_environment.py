"""Variables of wandb that a bridge inherits from one job."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from otel_train.bridge import read_run
from otel_train.bridge.wandb_environment import REPORTS, neutral
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.bridge_processes import BridgeProcess
from tests.support.environment import clean_environment
from tests.support.step_requests import step_request


def test_job_variables_stay_outside_runs(tmp_path: Path) -> None:
    """A bridge in the environment of a sweep or a resumed run keeps runs apart, and logs once what is ignored."""
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


@pytest.mark.parametrize(("asked", "threads"), [({}, 0), ({REPORTS: "true"}, 2)], ids=["by default", "asked for"])
def test_wandb_reports_on_request(tmp_path: Path, asked: dict[str, str], threads: int) -> None:
    """Nothing about wandb itself goes to its maker, unless the environment asks for it."""
    program = """
        import sys, threading
        from pathlib import Path
        from otel_train.bridge.inbox import SealedRow
        from otel_train.bridge.run_end import RunEnd
        from otel_train.bridge.wandb_sink import WandbSink

        sink = WandbSink(Path(sys.argv[1]), "offline", "p")
        sink.prepare()
        sink.open("run", None)
        sink.write("run", SealedRow(0, 1, {"loss": 0.5}))
        print(sum(thread.name.startswith("Otel") for thread in threading.enumerate()))
        sink.close("run", RunEnd(0, {}))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, env=clean_environment(**asked), stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) == threads


def test_identity_and_server_reach_wandb() -> None:
    """Server, key and entity stay; a variable that is set meanwhile stays, and removed ones come back."""
    environ = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "u", "WANDB_ENTITY": "e", "WANDB_RUN_ID": "r", "HOME": "/"}
    with neutral(environ):
        assert sorted(environ) == ["HOME", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY"]
        environ["WANDB_SERVICE"] = "ours"
    assert (environ["WANDB_RUN_ID"], environ["WANDB_SERVICE"]) == ("r", "ours")
