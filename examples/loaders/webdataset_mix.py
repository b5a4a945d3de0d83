"""Measure the mix of webdataset's `RandomMix`, by the probabilities that it has.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/webdataset_mix.py
It needs what tests/integrations/requirements/streams.in names.
"""

from __future__ import annotations

import random
import tempfile

import torch
import torch.distributed as dist
import webdataset as wds

import otel_train
from otel_train.integrations import webdataset

PROBABILITIES = {"code": 0.25, "prose": 0.75}


def write(folder: str) -> None:
    """Write some shards for each source."""
    for source in PROBABILITIES:
        with wds.ShardWriter(f"{folder}/{source}-%02d.tar", maxcount=50, verbose=0) as writer:
            for row in range(400):
                writer.write({"__key__": f"{source}{row}", "length.cls": 10 + row % 7})


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    if dist.get_rank() == 0:
        write(folder[0])
    dist.barrier()
    random.seed(dist.get_rank())  # RandomMix draws by it, and torch's seeds it in workers
    torch.manual_seed(dist.get_rank())
    urls = [f"{folder[0]}/{source}-{{00..07}}.tar" for source in PROBABILITIES]
    datasets = [wds.WebDataset(url, shardshuffle=8, nodesplitter=wds.split_by_node).decode().repeat() for url in urls]
    mix = wds.RandomMix(datasets, list(PROBABILITIES.values()))

    meter, mix = webdataset.track(mix, list(PROBABILITIES), tokens="length.cls")
    loader = wds.WebLoader(mix, batch_size=8, num_workers=2)

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_length": batch["length.cls"].float().mean()})
            if step == 50:
                break
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
