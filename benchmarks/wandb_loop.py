"""Log rows to wandb offline as fast as it goes, and print the seconds; run by the bridge's benchmark.

python -m benchmarks.wandb_loop ROWS.json FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import wandb


def main(rows: Path, folder: Path) -> None:
    """Log the first row to warm up, then time all others up to the end of the run's finish."""
    first, *others = json.loads(rows.read_text())
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(folder), project="bench", settings=settings)
    run.log(first, step=0)
    begin = time.perf_counter()
    for step, row in enumerate(others, start=1):
        run.log(row, step=step)
    run.finish()
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
