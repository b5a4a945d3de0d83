"""Log scalars of your own: weighted means of micro-batches, sums, maxima, and a norm of which each rank has a part.

Run it on two ranks: torchrun --nproc-per-node 2 examples/own_metrics.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import otel_train
from otel_train import Scalar

METRICS = [
    Scalar("train/tokens", "sum", unit="{token}"),
    Scalar("train/longest", "max", unit="{token}"),
    Scalar("train/grad_norm", "max"),
]  # "train/loss" is a mean without a unit, which needs no declaration


def main() -> None:
    """Train with gradient accumulation over four micro-batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    model = DistributedDataParallel(nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    with otel_train.init(metrics=METRICS) as telemetry:
        for step in range(1, 21):
            for length in torch.randint(1, 64, [4]).tolist():
                rows = torch.randn(length, 16)
                loss = (model(rows) - rows.sum(1, keepdim=True)).square().mean()
                (loss / 4).backward()
                # A mean over tokens, not over micro-batches: each counts by its weight.
                telemetry.add({"train/loss": loss}, weight=length)
                telemetry.add({"train/tokens": length, "train/longest": length})
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            telemetry.step(step, {"train/grad_norm": norm})
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: loss {values['train/loss']:.3f} over {values['train/tokens']:.0f} tokens,")
            print(f"rank {values['train/longest_rank']:.0f} had the longest: {values['train/longest']:.0f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
