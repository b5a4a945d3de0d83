"""Run `otel-train`, and wandb's own reader, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment


def run_otel_train(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments and variables, and return its exit code and what it printed."""
    command = [sys.executable, "-m", "otel_train", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=clean_environment(**environment), check=False
    )


def wandb_history(path: Path) -> Sequence[dict[str, Any]]:
    """Return the history rows of a `.wandb` file as wandb's own reader prints them."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    return [record["history"]["item"] for record in records if record["type"] == "history"]
