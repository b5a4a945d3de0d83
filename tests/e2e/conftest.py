"""Run the command as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def otel_train(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `otel-train` with arguments and return what came of it."""
    environment = {**os.environ, "COLUMNS": "120"}
    command = [sys.executable, "-m", "otel_train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


def wandb_history(path: Path) -> Sequence[dict[str, Any]]:
    """Return the history rows of a `.wandb` file as wandb's own reader prints them."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    return [record["history"]["item"] for record in records if record["type"] == "history"]
