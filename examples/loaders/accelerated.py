"""Measure the mix of a loader that accelerate has prepared: process 0 reads, and sends each process its rows.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/loaders/accelerated.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader, WeightedRandomSampler

import otel_train
from otel_train.integrations import torch_datasets

WEIGHTS = {"code": 1.0, "prose": 3.0}


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=True))
    rows = {source: [{"ids": torch.arange(16), "length": 16}] * 1000 for source in WEIGHTS}
    row_weights = [weight / 1000 for weight in WEIGHTS.values() for _ in range(1000)]
    sampler = WeightedRandomSampler(row_weights, 50 * 16)

    meter, dataset = torch_datasets.track(rows, sampler, tokens="length")  # the weights are the sampler's
    loader = accelerator.prepare(DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=2))

    with otel_train.init(sources=[meter]) as telemetry:
        # `counted` comes last: accelerate has one batch ahead, which no step has trained on yet.
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_id": batch["ids"].float().mean()})
        telemetry.flush()
        if accelerator.is_main_process and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    accelerator.end_training()


if __name__ == "__main__":
    main()
