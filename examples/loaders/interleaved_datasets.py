"""Measure the mix of Hugging Face datasets that are interleaved by probabilities, a part of them for each rank.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/interleaved_datasets.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

import otel_train
from otel_train.integrations import hf_datasets

PROBABILITIES = {"code": 0.25, "prose": 0.75}


def rows(source: str, shards: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of some shards, as a streamed dataset does."""
    for shard in shards:
        for row in range(500):
            yield {"ids": [len(source) + shard + row] * 16, "length": 16}


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    shards = {source: {"source": source, "shards": list(range(4))} for source in PROBABILITIES}
    sources = {source: IterableDataset.from_generator(rows, gen_kwargs=options) for source, options in shards.items()}

    meter, dataset = hf_datasets.track(sources, list(PROBABILITIES.values()), seed=0, tokens="length")
    dataset = split_dataset_by_node(dataset, dist.get_rank(), dist.get_world_size())
    dataset = dataset.shuffle(seed=0, buffer_size=100)  # the same on each rank: another would take the same shards
    loader = DataLoader(dataset.with_format("torch"), batch_size=8, num_workers=2)

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_id": batch["ids"].float().mean()})
            if step == 50:
                break
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
