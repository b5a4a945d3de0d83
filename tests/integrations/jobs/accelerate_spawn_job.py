"""accelerate: a tracker that is made before two processes are spawned, to which it is pickled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ACCELERATE_USE_CPU"] = "true"

import torch.multiprocessing as mp  # after the environment that accelerate reads
from accelerate import Accelerator

from otel_train.integrations.accelerate import OtelTrainTracker


def train(rank: int, tracker: OtelTrainTracker) -> None:
    """Log two steps as one of two processes."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    accelerator = Accelerator(log_with=[tracker])
    for step in (1, 2):
        accelerator.log({"train/loss": step * 10.0**rank}, step=step)
    accelerator.end_training()


if __name__ == "__main__":
    os.environ["MASTER_PORT"] = sys.argv[2]
    mp.spawn(train, (OtelTrainTracker(ring_dir=Path(sys.argv[1])),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
