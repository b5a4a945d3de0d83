"""Two jobs that have one run's id."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import otel_train
from otel_train.ring import ring_files
from tests.support.environment import clean_environment

JOB = """
import sys
import otel_train
telemetry = otel_train.init(ring_dir=sys.argv[1], run_id=sys.argv[2], close_timeout=0.0)
telemetry.step(1)
print("trains", flush=True)
sys.stdin.readline()
if sys.argv[3:]:
    telemetry.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def training(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Train in another process as long as the block."""
    command = [sys.executable, "-c", JOB, *arguments]
    environment = clean_environment(OTEL_TRAIN_SIDECAR="external")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as job:
        assert job.stdout is not None
        assert job.stdin is not None
        assert job.stdout.readline() == "trains\n"
        if arguments[2:]:
            print(file=job.stdin, flush=True)
            assert job.stdout.readline() == "closed\n"
        yield job
        job.kill()


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [(("mine",), True), (("another",), False), (("mine", "closes"), False)],
    ids=["same run", "another run", "closed"],
)
def test_shared_run_warns_once(
    arguments: tuple[str, ...],
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run that another job writes is one warning with its process; of two that begin at once one warns."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    with (
        training(str(tmp_path), *arguments) as job,
        otel_train.init(ring_dir=tmp_path, run_id="mine", close_timeout=0.0) as telemetry,
    ):
        for step in (1, 2):
            telemetry.step(step)
    said = [each.getMessage() for each in caplog.records if "writes run 'mine' too" in each.getMessage()]
    assert ([f"process {job.pid}," in text for text in said], len(ring_files(tmp_path))) == ([True] * warned, 2)
