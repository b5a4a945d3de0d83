"""`tools/gpu-check.sh` where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fresh import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"


def check(python: Path) -> subprocess.CompletedProcess[str]:
    """Run the check with an interpreter, and no GPU that it could see."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": str(python)}
    return subprocess.run(
        [ROOT / "tools" / "gpu-check.sh"], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_check_names_what_it_needs(tmp_path: Path) -> None:
    """An interpreter without torch or pytest ends it at once, with one line."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = check(python)
    assert (done.returncode, len(done.stderr.splitlines()), "torch and pytest" in done.stderr) == (2, 1, True)


@pytest.mark.matrix
def test_check_rehearses_without_device() -> None:
    """Without a GPU it runs to its end, says that there is none, meets no goal and keeps no figure."""
    before = RESULTS.read_bytes()
    done = check(Path(sys.executable))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done without a device" in done.stdout
    assert "met  " not in done.stdout
    assert RESULTS.read_bytes() == before
