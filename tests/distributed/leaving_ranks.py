"""Run on two ranks: rank 1 closes and ends while rank 0 has further steps to make."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import torch.distributed as dist

import otel_train
from tests.support.waiting import wait_until

OUT = Path(sys.argv[1])


def main() -> None:
    """Train; rank 0 makes no step until it is told that rank 1's process has ended.

    All names are local: the last reference to the process group goes when this returns.
    """
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=100))
    rank = dist.get_rank()
    with otel_train.init(ring_dir=OUT / "rings", close_timeout=0.5) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {"loss": float(step)})
        if rank == 0:
            wait_until((OUT / "ended").exists, 100.0, "the end of rank 1")
            telemetry.step(4, {"loss": 4.0})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
