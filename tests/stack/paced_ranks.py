"""Run by torchrun: steps at an even pace, whose values are known from their numbers, for as long as it is told."""

from __future__ import annotations

import sys
import time

import torch.distributed as dist

import otel_train

PACE = 0.05
"""Seconds a step."""


def picks(step: int, rank: int) -> int:
    """Return the picks of a rank in a step."""
    return step % 4 + rank


def main(steps: int) -> None:
    """Take the steps; the loss of step n is n."""
    dist.init_process_group("gloo")
    meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
    meter.open(0, "code")
    begin = time.monotonic()
    with otel_train.init(sources=[meter], close_timeout=30.0) as telemetry:
        for step in range(1, steps + 1):
            meter.pick(0, rows=picks(step, dist.get_rank()))
            telemetry.step(step, {"train/loss": float(step)})
            # Never two steps within one of Prometheus' milliseconds, also when it is late.
            time.sleep(max(PACE / 10, begin + step * PACE - time.monotonic()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
