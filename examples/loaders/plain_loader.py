"""Measure the mix of torch's DataLoader: datasets that a weighted sampler mixes, read by two workers on each rank.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/plain_loader.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, WeightedRandomSampler

import otel_train
from otel_train.integrations import torch_datasets

WEIGHTS = {"code": 1.0, "prose": 3.0}


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rows = {source: [{"ids": torch.arange(16), "length": 16}] * 1000 for source in WEIGHTS}
    row_weights = [weight / 1000 for weight in WEIGHTS.values() for _ in range(1000)]
    # A seed of its own for each rank: with the same one all ranks would read the same rows.
    sampler = WeightedRandomSampler(row_weights, 50 * 8, generator=torch.Generator().manual_seed(rank))

    meter, dataset = torch_datasets.track(rows, sampler, tokens="length")  # the weights are the sampler's
    loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=2)

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_id": batch["ids"].float().mean()})
        telemetry.flush()
        if rank == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
