"""Measure a plain DDP loop with uneven data, gradient accumulation and an evaluation.

Run it on two ranks: torchrun --nproc-per-node 2 examples/trainers/plain_ddp.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import otel_train

MICRO = 2
"""Micro-batches of a step."""
EPOCH = 20
"""Steps of an epoch on the rank that has most."""


def loss_of(model: nn.Module, rows: int) -> torch.Tensor:
    """Return the loss of a batch."""
    batch = torch.randn(rows, 16)
    return (model(batch) - batch.mean(1, keepdim=True)).square().mean()


def main() -> None:
    """Train two epochs, of which rank 1 has fewer batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    model = DistributedDataParallel(nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    with otel_train.init() as telemetry:
        for epoch in range(2):
            with model.join():  # a rank that has run out takes no step; the others' values go on
                for step in range(epoch * EPOCH + 1, (epoch + 1) * EPOCH + 1 - 5 * rank):
                    for _ in range(MICRO):
                        loss = loss_of(model, rows := 4 + rank)
                        (loss / MICRO).backward()
                        telemetry.add({"train/loss": loss}, weight=rows)  # the loss itself, never synchronised
                    optimizer.step()
                    optimizer.zero_grad()
                    telemetry.step(step)  # with its own number, on each rank
            with torch.no_grad():
                telemetry.log({"eval/loss": loss_of(model.module, 64)}, step=(epoch + 1) * EPOCH)
        telemetry.flush()
        if rank == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
