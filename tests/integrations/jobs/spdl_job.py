"""SPDL: a weighted `MergeIterator` and a pipeline that decodes and batches, with one thread or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
import torch.distributed as dist
from spdl.pipeline import PipelineBuilder

import otel_train
from otel_train.integrations.spdl import carry, track
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.payload import WEIGHTS, numbers, rows_of

ROWS = 60
BATCH = 8
Item = tuple[str, int, int]


@dataclass(frozen=True)
class Keys(Iterable[Item]):
    """This rank's part of the samples of a source, pass after pass."""

    source: str
    rank: int
    ranks: int

    def __iter__(self) -> Iterator[Item]:
        for repeat in count():
            yield from ((self.source, key, repeat) for key in range(self.rank, ROWS, self.ranks))


def decode(item: Item) -> torch.Tensor | None:
    """Return a sample's payload."""
    return torch.tensor(numbers(*item))


async def decode_thirds(item: Item) -> torch.Tensor | None:
    """Return a sample's payload, for a third of the prose only."""
    return None if item[0] == "prose" and item[1] % 3 else decode(item)


def tokens_of_item(item: Item) -> int:
    """Return a sample's number of tokens."""
    return sum(numbers(*item)[3:])


@dataclass(frozen=True)
class Batches(Iterable[Any]):
    """The batches of a pipeline that is started anew for each pass."""

    merged: Iterable[Any]
    wrong: bool
    threads: int
    first: int

    def __iter__(self) -> Iterator[Any]:
        stage = carry(decode_thirds if self.wrong else decode)
        builder = PipelineBuilder().add_source(islice(self.merged, self.first, None))
        builder = builder.pipe(stage, concurrency=self.threads, output_order="input")
        pipeline = builder.aggregate(BATCH).pipe(otel_train.Collate(torch.stack)).add_sink(4).build(num_threads=2)
        with pipeline.auto_stop():
            yield from pipeline


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    sources = {source: Keys(source, rank, ranks) for source in WEIGHTS}
    weights = WEIGHTS if case.variant != "ordered" else None
    meter, merged = track(sources, weights, tokens=tokens_of_item, repeat=2, seed=rank)
    consumed = 0

    def rows(batch: Any) -> list[Row]:
        nonlocal consumed
        consumed += len(batch)
        return rows_of(batch)

    first = saved or 0
    batches = Batches(merged, case.variant == "wrong", max(case.workers, 1), first)
    return Loading(meter=meter, batches=batches, rows=rows, save=lambda: first + consumed)


if __name__ == "__main__":
    run_cases(begin)
