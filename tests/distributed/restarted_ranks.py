"""Run by torchrun: take two steps, and fail as often as the second argument says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist

import otel_train

OUT, FAILURES = Path(sys.argv[1]), int(sys.argv[2])


def main() -> None:
    """Train in a group of all ranks."""
    dist.init_process_group("gloo")
    with otel_train.init(ring_dir=OUT, blocking=True, close_timeout=0.1) as telemetry:
        for step in (1, 2):
            telemetry.step(step, {"loss": 1.0})
        dist.barrier()
        if int(os.environ["TORCHELASTIC_RESTART_COUNT"]) < FAILURES:
            os._exit(1)


if __name__ == "__main__":
    main()
