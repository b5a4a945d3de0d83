"""torch's DataLoader: map-style datasets under a weighted sampler, an iterable dataset that mixes in its workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch.distributed as dist
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

import otel_train
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, rows_of, sample

ROWS = 200
BATCH = 8


class Documents(Dataset[Any]):
    """The samples of a source, by index."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return sample(self.source, index)


class WeightedOrder(Sampler[int]):
    """Endless indices into the sources one after the other, drawn by weight; it can begin later."""

    def __init__(self, weights: list[float], first: int) -> None:
        self.weights = weights
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return islice(self.draws(), self.first, None)

    def draws(self) -> Iterator[int]:
        """Yield all indices."""
        choice = random.Random(dist.get_rank())
        while True:
            [source] = choice.choices(range(len(SOURCES)), self.weights)
            yield source * ROWS + choice.randrange(ROWS)


class MixedStreams(IterableDataset[Any]):
    """Sources that each worker of each rank mixes by weight, reading its part of each pass after pass."""

    def __init__(self, meter: Any, first: int) -> None:
        self.tags = {source: meter.tag(source, tokens="tokens", repeat=repeat_of) for source in SOURCES}
        self.first = first
        self.rank = dist.get_rank()

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # Batches come from the workers in turn: this one's part of those that were consumed.
        batches = (self.first // BATCH + workers - 1 - number) // workers
        # The workers of a resumed loader begin with number 0 again, so it must be saved at a multiple of their number.
        return islice(self.draws(number), batches * BATCH, None)

    def draws(self, worker: int) -> Iterator[Any]:
        """Yield all samples of a worker."""
        choice = random.Random(10 * self.rank + worker)
        read = dict.fromkeys(SOURCES, 0)
        while True:
            [source] = choice.choices(SOURCES, list(WEIGHTS.values()))
            yield self.tags[source](sample(source, read[source] % 20, read[source] // 20))
            read[source] += 1


def repeat_of(row: Any) -> int:
    """Return the number of the pass that a sample belongs to."""
    return int(row["x"][2])


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    meter = otel_train.SourceMeter(WEIGHTS)
    first = saved or 0
    consumed = 0

    def rows(batch: Any) -> list[Row]:
        nonlocal consumed
        consumed += len(batch["x"])
        return rows_of(batch["x"])

    if case.variant == "iterable":
        loader = DataLoader(MixedStreams(meter, first), batch_size=BATCH, num_workers=case.workers)
    else:
        tagged = [otel_train.TaggedDataset(Documents(source), meter.tag(source, tokens="tokens")) for source in SOURCES]
        weights = [1.0] * len(SOURCES) if case.variant == "wrong" else list(WEIGHTS.values())
        order = WeightedOrder(weights, first)
        loader = DataLoader(ConcatDataset(tagged), batch_size=BATCH, sampler=order, num_workers=case.workers)
    return Loading(meter=meter, batches=loader, rows=rows, save=lambda: first + consumed)


if __name__ == "__main__":
    run_cases(begin)
