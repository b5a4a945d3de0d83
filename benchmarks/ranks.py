"""Start real ranks for a benchmark, as torchrun does, and read the figures that each of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_ranks(module: str, ranks: int, *arguments: object, timeout: float = 900.0) -> list[Any]:
    """Run `python -m module FILE-STEM arguments` on so many ranks and return what each wrote, by rank.

    Args:
        module: Its `main` calls `write`.
        ranks: Processes to start.
        *arguments: Those after the path to write to, on the command line.
        timeout: Seconds after which it is given up.

    Raises:
        RuntimeError: They failed; the message holds the end of what they printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command += ["-m", module, folder, *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{module} on {ranks} ranks:\n{done.stderr[-4000:]}")
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]


def write(folder: str, figures: object) -> None:
    """Write what this rank found."""
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(figures))
