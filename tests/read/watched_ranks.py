"""Run by torchrun on two ranks: steps until it is killed, each noted in the rank's file once it is recorded."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

import otel_train
from otel_train.mixing import MixingMeter

OUT = Path(sys.argv[1])
RANK = int(os.environ["RANK"])


def loss(step: int) -> float:
    """Return a value that differs from step to step and from rank to rank, and that JSON has no number for at times."""
    return float("nan") if step % 7 == 0 else step + 0.1 * RANK


meter = MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 3})
meter.open(0, "code")
meter.open(1, "prose")
dist.init_process_group("gloo")
(OUT / f"pid{RANK}").write_text(str(os.getpid()))
with (
    otel_train.init(sources=[meter], ring_dir=OUT / "rings", run_id="watched", blocking=True) as telemetry,
    (OUT / f"recorded{RANK}").open("w", buffering=1) as notes,
):
    for step in range(1, 100_000):
        meter.pick(step % 2)
        value = loss(step)
        telemetry.step(step, {"loss": value})
        notes.write(f"{step} {value!r}\n")
        time.sleep(0.01)
