"""Measure a mix of grain's datasets, read by threads, with the iterator's state.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/grain_mix.py
It needs what tests/integrations/requirements/iters.in names.
"""

from __future__ import annotations

import grain
import torch
import torch.distributed as dist

import otel_train
from otel_train.integrations import grain as measured

WEIGHTS = {"code": 1.0, "prose": 3.0}


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rows = [{"ids": torch.arange(16).numpy(), "length": 16}] * 100
    # A part of each source for each rank, before the mix: a slice of the mix would have another one.
    sources = {source: grain.MapDataset.source(rows)[rank::ranks].shuffle(seed=rank) for source in WEIGHTS}

    meter, mix = measured.track(sources, WEIGHTS, tokens="length")  # instead of MapDataset.mix
    loader = iter(mix.repeat().to_iter_dataset().batch(8))

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_id": torch.as_tensor(batch["ids"]).float().mean()})
            if step == 50:
                break
        state = {"loader": loader.get_state(), "meter": meter.state_dict()}  # what a checkpoint has
        telemetry.flush()
        if rank == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
            print(f"saved: {', '.join(state)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
