"""Train a little on each rank until told to end; a file named after an activity and a rank makes it hang in that."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

import otel_train
from otel_train.ledger import StateLedger

OUT = Path(sys.argv[1])


def hang(activity: str) -> None:
    """Wait as long as this rank's file for the activity exists."""
    while (OUT / f"{activity}-{dist.get_rank()}").exists():
        time.sleep(0.02)


def batches() -> Iterator[list[int]]:
    """Yield three streams of this rank's, for ever."""
    while True:
        hang("data")
        time.sleep(0.02)
        yield [3 * dist.get_rank() + stream for stream in range(3)]


def main() -> None:
    """Run until there is a file `end`."""
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=120))
    ledger = StateLedger((2,), capacity=8)
    with otel_train.init(sources=[ledger], ring_dir=OUT / "rings") as telemetry:
        for step, batch in enumerate(telemetry.timed(batches()), start=1):
            states = ledger.fetch(batch).states
            hang("compute")
            ledger.store(batch, states + 1)
            telemetry.step(step, {"loss": 1.0})
            done = torch.tensor([float((OUT / "end").exists())])
            dist.all_reduce(done)
            if done:
                break


if __name__ == "__main__":
    main()
