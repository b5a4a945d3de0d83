"""Run by torchrun on two ranks: one has fewer batches than the other in each epoch, as DDP's `join()` allows."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import otel_train
from otel_train.mixing import MixingMeter

LONG, SHORT, EPOCHS = 40, 25, 2


def main() -> None:
    """Train; rank 1 leaves each epoch after `SHORT` batches, and its loss is 10 times rank 0's."""
    out = Path(sys.argv[1])
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    logging.basicConfig(level=logging.WARNING, filename=out / f"rank{rank}.log")
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    meter = MixingMeter(1, ["a"], {"a": 1.0})
    meter.open(0, "a")
    seconds = []
    with otel_train.init(sources=[meter], ring_dir=out / "rings", close_timeout=3.0) as telemetry:
        for epoch in range(EPOCHS):
            with model.join():
                for batch in range(1, (SHORT if rank else LONG) + 1):
                    model(torch.ones(2, 4)).sum().backward()
                    meter.pick(0)
                    step = epoch * LONG + batch
                    begin = time.monotonic()
                    telemetry.step(step, {"loss": float(step * 10**rank)})
                    seconds.append(time.monotonic() - begin)
                    time.sleep(0.01)
    (out / f"rank{rank}.json").write_text(json.dumps(sorted(seconds)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
