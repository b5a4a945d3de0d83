"""A real job of two ranks, read while it runs, and dumped after it was killed."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from otel_train.smoke.child_process import running_process
from tests.support.commands import run_otel_train
from tests.support.torchrun import rank_environment, script, torchrun
from tests.support.waiting import wait_until

Values = dict[tuple[int, int], str]
"""The recorded values, as text, by rank and step."""


def printed(*arguments: object) -> str:
    """Return the output of the command, which succeeds."""
    run = run_otel_train(*arguments, COLUMNS="80", PYTHONIOENCODING="utf-8")
    assert run.returncode == 0, run.stderr
    return run.stdout


def recorded(out: Path) -> Values:
    """Return the ranks' notes."""
    notes = [(rank, line.split()) for rank in (0, 1) for line in (out / f"recorded{rank}").read_text().splitlines()]
    return {(rank, int(step)): value for rank, (step, value) in notes}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the job until the last test, which kills it."""

    def train(out: Path) -> None:
        """Step until killed, and note each recorded step; the loss differs by step and rank, and is NaN at times."""
        import os
        import time

        import torch.distributed as dist

        import otel_train
        from otel_train.mixing import MixingMeter

        dist.init_process_group("gloo")
        rank = dist.get_rank()
        meter = MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 3})
        meter.open(0, "code")
        meter.open(1, "prose")
        (out / f"pid{rank}").write_text(str(os.getpid()))
        with (
            # Room for all that is recorded until the tests have looked, however long they take.
            otel_train.init(
                sources=[meter], ring_dir=out / "rings", run_id="watched", blocking=True, ring_records=50_000
            ) as telemetry,
            (out / f"recorded{rank}").open("w", buffering=1) as notes,
        ):
            for step in range(1, 100_000):
                meter.pick(step % 2)
                loss = float("nan") if step % 7 == 0 else step + 0.1 * rank
                telemetry.step(step, {"loss": loss})
                notes.write(f"{step} {loss!r}\n")
                time.sleep(0.01)

    out = tmp_path_factory.mktemp("job")
    with running_process(torchrun(2, script(out, train, out)), out / "log", rank_environment()) as agent:
        (out / "agent").write_text(str(agent.pid))
        notes = [out / f"recorded{rank}" for rank in (0, 1)]
        wait_until(lambda: all(path.exists() and path.stat().st_size > 400 for path in notes), 90, log=out / "log")
        yield out


def test_running_job_is_live(job: Path) -> None:
    """A running job is attached to from outside, is shown as live, and goes on."""
    before = len(recorded(job))
    frame = printed("top", "--once", job).splitlines()
    assert "watched  2 ranks" in frame[0]
    assert " live, up " in frame[0]
    assert [line[2] for line in frame if line[1:2] == " " and line[2:3].isdigit()] == ["0", "1"]
    dumped = [json.loads(line) for line in printed("dump", job, "--metric", "loss").splitlines()]
    assert {row["kind"] for row in dumped} == {"rank", "cluster"}
    wait_until(lambda: len(recorded(job)) > before + 20, log=job / "log")


def test_killed_job_is_dumped(job: Path) -> None:
    """After kill -9 the job is shown as dead, and all three formats have its values up to the last step."""
    agent = int((job / "agent").read_text())
    os.kill(agent, signal.SIGSTOP)  # it would end the second rank once the first is gone
    try:
        for rank in (0, 1):
            os.kill(int((job / f"pid{rank}").read_text()), signal.SIGKILL)
        wait_until(lambda: "died" in printed("top", "--once", job).splitlines()[0], 90.0, log=job / "log", pause=0.2)
    finally:
        os.kill(agent, signal.SIGCONT)
    expected = recorded(job)
    chosen = ("dump", job, "--kind", "rank", "--metric", "loss")
    lines = [json.loads(line) for line in printed(*chosen).splitlines()]
    printed(*chosen, "--out", job / "dump.csv")
    printed(*chosen, "--out", job / "dump.parquet")
    with (job / "dump.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(job / "dump.parquet", columns=["rank", "step", "loss"]).to_pylist()
    for content in (lines, rows, table):
        dumped = {(int(row["rank"]), int(row["step"])): str(row["loss"]).lower() for row in content}
        # A rank may have been killed between a step's record and its note.
        assert all(dumped.get(key) == value for key, value in expected.items())
        assert len(dumped) <= len(expected) + 2
