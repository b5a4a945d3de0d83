"""Run on four ranks, without torchrun, which would end them all: rank 2 raises, rank 3 is killed, two train on."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import torch.distributed as dist

import otel_train
from otel_train.step.sidecar_process import wait_until

OUT = Path(sys.argv[1])
GROUPS = {"raises": [0, 1, 2], "killed": [0, 1, 3]}


def main() -> None:
    """Train with a session for each group that this rank belongs to; the loss of step n is n times a power of ten."""
    logging.basicConfig(level=logging.WARNING)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=60))
    rank = dist.get_rank()
    with ExitStack() as stack:
        sessions = []
        for name, ranks in GROUPS.items():
            group = dist.new_group(ranks)
            if isinstance(group, dist.ProcessGroup):
                sessions.append(
                    stack.enter_context(otel_train.init(process_group=group, ring_dir=OUT / name, close_timeout=0.5))
                )
        for step in range(1, 21):
            for each in sessions:
                each.step(step, {"loss": float(step * 10**rank)})
                if step == 3:
                    assert (running := each._running) is not None
                    assert wait_until(lambda reducer=running.reducer: reducer.settled, 30.0)  # type: ignore[misc]
            if step == 3:
                dist.barrier()
            if step == 4 and rank == 2:
                raise ValueError("the data is bad")
            if step == 4 and rank == 3:
                os.kill(os.getpid(), signal.SIGKILL)
    # No collective any more: two ranks are gone.


if __name__ == "__main__":
    main()
