"""Two jobs that have one run's id."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import otel_train
from otel_train.ring import ring_files
from tests.support.environment import clean_environment


@pytest.mark.usefixtures("external_sidecar")
@pytest.mark.parametrize(
    ("arguments", "warned"),
    [(["mine"], True), (["another"], False), (["mine", "closes"], False)],
    ids=["same run", "another run", "closed"],
)
def test_shared_run_warns_once(
    arguments: list[str], warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that another job writes is one warning with its process; of two that begin at once one warns."""
    program = """
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
    command = [sys.executable, "-c", dedent(program), str(tmp_path), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean_environment(OTEL_TRAIN_SIDECAR="external"), stdin=pipe, stdout=pipe
    ) as job:
        assert job.stdout is not None
        assert job.stdin is not None
        assert job.stdout.readline() == b"trains\n"
        if arguments[1:]:
            job.stdin.write(b"\n")
            job.stdin.flush()
            assert job.stdout.readline() == b"closed\n"
        with otel_train.init(ring_dir=tmp_path, run_id="mine", close_timeout=0.0) as telemetry:
            for step in (1, 2):
                telemetry.step(step)
        job.kill()
    warnings = [message for message in caplog.messages if "writes run 'mine' too" in message]
    assert [f"process {job.pid}," in message for message in warnings] == [True] * warned
    assert len(ring_files(tmp_path)) == 2
