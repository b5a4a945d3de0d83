"""Measure a training loop and a mixing loader of your own.

Run it on two ranks: torchrun --nproc-per-node 2 examples/own_loop.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import otel_train

WEIGHTS = {"code": 1.0, "prose": 3.0}


def batches(meter: otel_train.MixingMeter, count: int, rank: int) -> Iterator[torch.Tensor]:
    """Yield batches of eight rows, each from a stream that is chosen by weight, and tell the meter of each choice."""
    choice = random.Random(rank)
    for slot, modality in enumerate(WEIGHTS):
        meter.open(slot, modality)
    for _ in range(count):
        slots = choice.choices(range(len(WEIGHTS)), list(WEIGHTS.values()), k=8)
        for slot in slots:
            meter.pick(slot, tokens=16)
        yield torch.randn(8, 16) + torch.tensor(slots)[:, None]


def main() -> None:
    """Train a small model, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = DistributedDataParallel(nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    meter = otel_train.MixingMeter(len(WEIGHTS), list(WEIGHTS), WEIGHTS)

    with otel_train.init(sources=[meter], log_every=10) as telemetry:
        # `timed` measures how long each step waits for its batch.
        for step, batch in enumerate(telemetry.timed(batches(meter, 50, rank)), start=1):
            loss = (model(batch) - batch.mean(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            telemetry.step(step, {"train/loss": loss})  # never synchronised
        telemetry.flush()
        if rank == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: loss {values['train/loss']:.3f}, picks {values['stream_mixing/picks']:.0f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
