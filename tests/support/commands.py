"""Run `otel-train` as a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.support.environment import clean_environment


def run_otel_train(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments and variables, and return its exit code and what it printed."""
    command = [sys.executable, "-m", "otel_train", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=clean_environment(**environment), check=False
    )
