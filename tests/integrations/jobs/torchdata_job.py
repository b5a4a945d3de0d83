"""torchdata: nodes that are mixed by weight and prefetched, and a StatefulDataLoader, resumed by their own states."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler, get_worker_info
from torchdata import nodes
from torchdata.stateful_dataloader import StatefulDataLoader

import otel_train
from otel_train.integrations import torch_datasets, torchdata
from tests.integrations.support.case_loop import STEPS, Case, Loading, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, rows_of, sample

BATCH = 8


class Documents(torch.utils.data.Dataset[Any]):
    """The samples of a source."""

    def __init__(self, source: str, rows: int) -> None:
        self.source = source
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Any:
        return sample(self.source, index)


class Passes:
    """The samples of a source, again and again: each pass has its number in the payload. It can be saved."""

    def __init__(self, source: str, rows: int) -> None:
        self.source = source
        self.rows = rows
        self.repeat, self.index = -1, rows

    def __iter__(self) -> Iterator[Any]:
        if self.index == self.rows:
            self.repeat, self.index = self.repeat + 1, 0
        while self.index < self.rows:
            self.index += 1
            yield sample(self.source, self.index, self.repeat)

    def state_dict(self) -> dict[str, int]:
        return {"index": self.index, "repeat": self.repeat}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.index, self.repeat = state["index"], state["repeat"]


class Stream(IterableDataset[Any]):
    """The samples of both sources in turn as their weights have it, a part for each worker, with a state."""

    def __init__(self) -> None:
        self.index = 0
        self.loaded = False

    def __iter__(self) -> Any:
        if not self.loaded:
            self.index = 0
        self.loaded = False
        worker = get_worker_info()
        choice = torch.Generator().manual_seed(10 * dist.get_rank() + (worker.id if worker else 0))
        drawn = (torch.rand(2000, generator=choice) < 0.25).tolist()
        while True:
            source = SOURCES[0] if drawn[self.index] else SOURCES[1]
            self.index += 1
            yield sample(source, self.index)

    def state_dict(self) -> dict[str, int]:
        return {"index": self.index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.index, self.loaded = state["index"], True


def begin_nodes(case: Case) -> tuple[Any, Any]:
    """Return a meter and a loader of nodes."""
    weights = dict.fromkeys(SOURCES, 1.0) if case.variant == "wrong" else WEIGHTS
    sources = {source: nodes.IterableWrapper(Passes(source, 40)) for source in SOURCES}
    sampler = nodes.MultiNodeWeightedSampler(sources, weights, stop_criteria=nodes.StopCriteria.CYCLE_FOREVER)
    meter, sampler = torchdata.track(sampler, tokens="tokens")
    if case.variant == "wrong":
        meter.set_weights(WEIGHTS)
    collated = nodes.ParallelMapper(
        nodes.Batcher(sampler, BATCH), torch.utils.data.default_collate, num_workers=case.workers, method="thread"
    )
    return meter, nodes.Loader(nodes.Prefetcher(collated, 4))


class InWorkers(IterableDataset[Any]):
    """Nodes inside of a DataLoader's workers: their sampler chooses the same in each, and their sources don't shard."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        return iter(nodes.Loader(self.sampler))


def begin_doubled(case: Case) -> tuple[Any, Any]:
    """Return a meter and a DataLoader whose workers read the very same rows."""
    sources = {source: nodes.IterableWrapper(Passes(source, 1000)) for source in SOURCES}
    meter, sampler = torchdata.track(nodes.MultiNodeWeightedSampler(sources, WEIGHTS), tokens="tokens", sample=key_of)
    return meter, DataLoader(InWorkers(sampler), BATCH, num_workers=case.workers, multiprocessing_context="forkserver")


def key_of(row: Any) -> tuple[int, int]:
    """Return what distinguishes a sample: its rank, since ranks have the same keys in this job, and its key."""
    return int(os.environ["RANK"]), int(row["x"][1])


def begin_map(case: Case) -> tuple[Any, Any]:
    """Return a meter and a StatefulDataLoader over map-style datasets of unequal sizes."""
    sources = {"code": Documents("code", 50), "prose": Documents("prose", 300)}
    row_weights = [WEIGHTS[source] / len(rows) for source, rows in sources.items() for _ in range(len(rows))]
    generator = torch.Generator().manual_seed(dist.get_rank())
    sampler = WeightedRandomSampler(row_weights, STEPS * BATCH, generator=generator)
    meter, dataset = torch_datasets.track(sources, sampler, tokens="tokens")
    return meter, StatefulDataLoader(dataset, BATCH, sampler=sampler, num_workers=case.workers)


def begin_stream(case: Case) -> tuple[Any, Any]:
    """Return a meter and a StatefulDataLoader over an iterable dataset that has a state."""
    meter = otel_train.SourceMeter(WEIGHTS)
    tags = [meter.tag(source, tokens="tokens") for source in SOURCES]
    dataset = otel_train.TaggedDataset(Stream(), lambda row: tags[row["x"][0] - 1](row))
    return meter, StatefulDataLoader(dataset, BATCH, num_workers=case.workers)


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    make = {"map": begin_map, "stream": begin_stream, "doubled": begin_doubled}.get(case.variant, begin_nodes)
    meter, loader = make(case)
    if saved is not None:
        loader.load_state_dict(saved)
    return Loading(
        meter=meter, batches=loader, rows=lambda batch: rows_of(batch["x"]), save=getattr(loader, "state_dict", dict)
    )


if __name__ == "__main__":
    run_cases(begin)
