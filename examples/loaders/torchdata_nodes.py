"""Measure the mix of torchdata's nodes: a weighted sampler of sources, batched and prefetched, with its state.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/torchdata_nodes.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.utils.data import default_collate
from torchdata import nodes

import otel_train
from otel_train.integrations import torchdata

WEIGHTS = {"code": 1.0, "prose": 3.0}


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    rows = [{"ids": torch.arange(16), "length": 16}] * 100
    sources = {source: nodes.IterableWrapper(rows) for source in WEIGHTS}
    sampler = nodes.MultiNodeWeightedSampler(sources, WEIGHTS, stop_criteria=nodes.StopCriteria.CYCLE_FOREVER)

    meter, sampler = torchdata.track(sampler, tokens="length")  # before it is batched and prefetched
    batches = nodes.Mapper(nodes.Batcher(sampler, 8), default_collate)
    loader = nodes.Loader(nodes.Prefetcher(batches, prefetch_factor=4))

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_id": batch["ids"].float().mean()})
            if step == 50:
                break
        state = {"loader": loader.state_dict(), "meter": meter.state_dict()}  # what a checkpoint has
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
            print(f"saved: {', '.join(state)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
