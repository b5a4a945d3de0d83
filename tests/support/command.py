"""Run the commands as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment


def otel_train(
    *arguments: object, seconds: float = 240, columns: int = 120, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `otel-train` with arguments, in a terminal of so many columns, and return its exit code and output."""
    command = [sys.executable, "-m", "otel_train", *map(str, arguments)]
    environment = clean_environment(COLUMNS=str(columns), PYTHONIOENCODING="utf-8")
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=check)


def wandb_history(path: Path) -> Sequence[dict[str, Any]]:
    """Return the history rows of a `.wandb` file as wandb's own reader prints them."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    return [record["history"]["item"] for record in records if record["type"] == "history"]
