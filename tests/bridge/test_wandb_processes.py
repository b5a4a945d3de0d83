"""Processes that write to wandb's files."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from otel_train.bridge.wandb_processes import end_writers


def test_start_ends_other_writers(tmp_path: Path) -> None:
    """A process that has a run's file open for writing is ended; one that reads it stays."""
    path = tmp_path / "run-run.wandb"
    path.touch()
    code = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    modes = ("ab", "rb")
    writing, reading = (
        subprocess.Popen([sys.executable, "-c", code, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for mode in modes
    )
    for process in (writing, reading):
        assert process.stdout is not None
        process.stdout.readline()
    end_writers(tmp_path, grace=0)
    assert writing.wait(30) == -signal.SIGKILL
    assert reading.poll() is None
    reading.communicate()
