"""A rank's exit code is the one that its process ends with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from otel_train.ring import End
from otel_train.sidecar.exit_codes import exit_code


@pytest.mark.parametrize("code", [3, -1, 256, 259])
def test_code_is_that_of_process(code: int) -> None:
    """A process has a byte for its code: SystemExit(256) is a good end."""
    process = subprocess.run([sys.executable, "-SIc", f"raise SystemExit({code})"], check=False)
    assert exit_code(End.CLOSED, f"SystemExit({code})") == process.returncode
