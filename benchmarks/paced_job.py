"""A rank that takes steps at an even pace; run by torchrun, by the end-to-end benchmark."""

from __future__ import annotations

import sys
import time

import torch.distributed as dist

import otel_train


def main(steps: int, pace: float) -> None:
    """Take the steps."""
    dist.init_process_group("gloo")
    meter = otel_train.MixingMeter(2, ["code", "prose"], {"code": 1.0, "prose": 1.0})
    for slot, modality in enumerate(("code", "prose")):
        meter.open(slot, modality)
    with otel_train.init(sources=[meter]) as telemetry:
        begin = time.monotonic()
        for step in range(1, steps + 1):
            meter.pick(step % 2, tokens=64)
            telemetry.step(step, {"train/loss": 1.0 / step, "train/lr": 1e-4})
            # Never two steps within one of Prometheus' milliseconds, also when it is late.
            time.sleep(max(pace / 10, begin + step * pace - time.monotonic()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
