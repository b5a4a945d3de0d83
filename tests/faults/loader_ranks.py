"""Run by torchrun: a worker of one rank's loader is killed; its training loop begins a new loader and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

import otel_train

ROWS, STEPS, KILLED_AT = 4, 30, 10


@dataclass
class Numbers:
    """A stream whose row n is n."""

    id: str
    modality: str = "code"

    def __len__(self) -> int:
        return 1000

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row and its tokens."""
        return {"value": torch.tensor(position)}, 1


def go_on_without_worker(iterator: Any, loader: DataLoader[Any]) -> Iterator[Any]:
    """Kill the worker and return a new loader's iterator; PyTorch's error comes from its handler of SIGCHLD."""
    try:
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        time.sleep(60)
    except RuntimeError:
        return iter(loader)
    raise AssertionError("the loader did not notice")


def main() -> None:
    """Take the steps; the loss of step n is n, and each rank picks as many rows as a batch has."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    streams = [Numbers(f"s{number}") for number in range(8)]
    dataset = otel_train.StreamMixingDataset(
        streams, {"code": 1.0}, readers=2, batch_size=ROWS, rank=rank, world_size=dist.get_world_size()
    )
    loader = DataLoader(dataset, batch_size=ROWS, num_workers=1)
    with otel_train.init(sources=[dataset]) as telemetry:
        iterator: Iterator[Any] = iter(loader)
        for step in range(1, STEPS + 1):
            assert len(next(iterator)["value"]) == ROWS
            telemetry.step(step, {"train/loss": float(step)})
            if step == KILLED_AT and rank == 1:
                iterator = go_on_without_worker(iterator, loader)
            dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
