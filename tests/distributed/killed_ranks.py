"""Run on two ranks: rank 0 makes no call of ours after its last step, and is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist

import otel_train

STEPS = 5


def main() -> None:
    """Train; rank 1 comes to its last step after rank 0, whose ring is to have all the same what both have launched."""
    dist.init_process_group("gloo")
    rank, store = dist.get_rank(), dist.distributed_c10d._get_default_store()
    telemetry = otel_train.init(ring_dir=Path(sys.argv[1]), close_timeout=0.1)
    for step in range(1, STEPS + 1):
        if rank == 1 and step == STEPS:
            store.wait(["first"])
        telemetry.step(step, {"loss": float(step * 10**rank)})
    store.set(("first", "second")[rank], "")
    store.wait(["second"])
    if rank == 0:
        time.sleep(0.3)
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    time.sleep(120)  # until it is killed


if __name__ == "__main__":
    main()
