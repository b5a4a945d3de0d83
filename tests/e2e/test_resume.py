"""A job that is saved, stopped and started again, through everything up to the wandb file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps, wandb_files
from otel_train.catalogue import HEADLINE_KEYS
from otel_train.ring import RingReader, ring_files
from tests.support.commands import wandb_history
from tests.support.environment import clean_environment
from tests.support.torchrun import torchrun
from tests.support.waiting import wait_until


@pytest.mark.e2e
def test_resume_equals_whole_job(tmp_path: Path) -> None:
    """Values, loss and steps are those of a job that never stopped; with more ranks the run is still one."""

    def run_job(folder: Path, address: str, *starts: tuple[int, int]) -> str:
        """Start the job once for each (ranks, last step), and return the id of the run that all of it is in."""
        folder.mkdir()
        environment = clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}",
            OTEL_TRAIN_RING_DIR=str(folder / "rings"),
        )
        for ranks, steps in starts:
            command = torchrun(ranks, "-m", "otel_train.trainer", "--config", "healthy", "--steps", steps)
            command += ["--checkpoints", str(folder / "checkpoints")]
            with (folder / "train.log").open("a") as log:
                subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=120, check=True)
        (run_id,) = {RingReader(path).identity.run_id for path in ring_files(folder / "rings")}
        return run_id

    once, twice, state = tmp_path / "once", tmp_path / "twice", tmp_path / "bridge"
    with Bridge(BridgeConfig(state=state, listen="127.0.0.1:0")) as bridge:
        straight = run_job(once, bridge.address, (2, 24))
        resumed = run_job(twice, bridge.address, (2, 12), (2, 24), (3, 30))
        wait_until(
            lambda: (delivered_steps(state, straight), delivered_steps(state, resumed)) == (24, 30),
            90,
            log=once / "train.log",
        )
    expected, rows = (
        [row for path in wandb_files(state, run_id) for row in wandb_history(path)] for run_id in (straight, resumed)
    )
    compared = (*HEADLINE_KEYS, "train/step", "train/loss", "train/tokens")
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert [row["train/step"] for row in rows] == list(range(1, 31))
    assert [{key: row[key] for key in compared} for row in rows[:24]] == [
        {key: row[key] for key in compared} for row in expected
    ]
    attempts = [row["train/attempt"] for row in rows]
    assert attempts == sorted(attempts)
    assert [attempts.count(attempt) for attempt in sorted(set(attempts))] == [12, 12, 6]
    assert {row["stream_mixing/picks"] for row in rows[24:]} == {1.5 * rows[0]["stream_mixing/picks"]}
    assert (twice / "train.log").read_text().count("resharded: world size 2 -> 3") == 1
