"""Hugging Face datasets: interleaved by probabilities, iterable with shards and a shuffle buffer, and map-style."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()

import torch.distributed as dist  # after the cache's folder is set
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torchdata.stateful_dataloader import StatefulDataLoader

from otel_train.integrations import hf_datasets
from tests.integrations.support.case_loop import Case, Loading, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, numbers, rows_of

BATCH = 8
SHARDS = 4
PROBABILITIES = [weight / sum(WEIGHTS.values()) for weight in WEIGHTS.values()]


def rows(source: str, shards: list[int], size: int) -> Iterator[dict[str, Any]]:
    """Yield the samples of some shards of a source."""
    for shard in shards:
        for index in range(size):
            x = numbers(source, shard * size + index)
            yield {"x": x, "length": sum(x[3:]), "key": x[1]}


def stream(source: str) -> Any:
    """Return a source that is read as it comes."""
    shards = {"source": source, "shards": list(range(SHARDS)), "size": 400}
    return IterableDataset.from_generator(rows, gen_kwargs=shards)


def table(source: str, size: int) -> Any:
    """Return a source that is in memory."""
    return Dataset.from_list(list(rows(source, [0], size))).with_format("torch")


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    sampler = None
    if case.variant == "map":
        sources = {source: table(source, size) for source, size in zip(SOURCES, (300, 700), strict=True)}
    else:
        sources = {source: stream(source) for source in SOURCES}
    probabilities = [0.5, 0.5] if case.variant == "wrong" else PROBABILITIES
    strategy = "first_exhausted" if case.variant == "stream" else "all_exhausted"
    meter, dataset = hf_datasets.track(
        sources, probabilities, seed=5, stopping_strategy=strategy, tokens="length", sample="key"
    )
    if case.variant == "wrong":
        meter.set_weights(WEIGHTS)
    dataset = split_dataset_by_node(dataset, dist.get_rank(), dist.get_world_size())
    if case.variant in ("shuffled", "reread"):
        # The shards are shuffled before they are split: with another seed a rank takes some that the other one has.
        dataset = dataset.shuffle(seed=dist.get_rank() if case.variant == "reread" else 3, buffer_size=50)
    if case.variant != "map":
        dataset = dataset.with_format("torch")
    loader = StatefulDataLoader(dataset, BATCH, sampler=sampler, num_workers=case.workers)
    if saved is not None:
        loader.load_state_dict(saved)
    return Loading(meter=meter, batches=loader, rows=lambda batch: rows_of(batch["x"]), save=loader.state_dict)


if __name__ == "__main__":
    run_cases(begin)
