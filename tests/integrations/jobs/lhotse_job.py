"""lhotse: a sampler that deals batches to the ranks, and one in each worker of an iterable dataset."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import MixedCut
from lhotse.dataset import DynamicCutSampler, IterableDatasetWrapper
from lhotse.dataset.dataloading import make_worker_init_fn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from otel_train.integrations.lhotse import WithTags, track
from tests.integrations.support.case_loop import Case, Loading, run_cases
from tests.integrations.support.payload import WEIGHTS, numbers, rows_of, tokens_of

ROWS = 120
BATCH = 8


class Speech(Dataset[Any]):
    """Makes a batch of cuts."""

    def __getitem__(self, cuts: CutSet) -> Any:
        rows = []
        for part in (part for cut in cuts for part in parts_of(cut)):
            x = json.loads(part.supervisions[0].text)
            x[2] = int(part.id.split("_repeat")[1])
            rows.append(x)
        return {"x": torch.tensor(rows), "ids": [cut.id for cut in cuts]}


class Shard:
    """This rank's and this worker's part of a source's cuts, as `CutSet.from_shar` has it of shards on disk."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()

    def __iter__(self) -> Iterator[MonoCut]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        parts = self.ranks * workers
        yield from (cut_of(self.source, key) for key in range(self.rank * workers + number, ROWS, parts))


def cut_of(source: str, key: int) -> MonoCut:
    """Return a cut whose text is the payload."""
    name = f"{source}-{key}"
    words = SupervisionSegment(id=name, recording_id=name, start=0, duration=1, text=json.dumps(numbers(source, key)))
    recording = Recording(id=name, sources=[], sampling_rate=100, num_samples=100, duration=1, channel_ids=[0])
    return MonoCut(id=name, start=0, duration=1, channel=0, supervisions=[words], recording=recording)


def parts_of(cut: Any) -> list[Any]:
    """Return the cuts that have been joined into one."""
    return [track.cut for track in cut.tracks if track.cut.supervisions] if isinstance(cut, MixedCut) else [cut]


def joined(cuts: CutSet) -> CutSet:
    """Join each two cuts of a batch, and pad them."""
    whole = list(cuts)
    pairs = [first.append(second) for first, second in zip(whole[::2], whole[1::2], strict=False)]
    return CutSet([*pairs, *whole[len(whole) - len(whole) % 2 :]]).pad(duration=3)


def tokens_of_cut(cut: Any) -> int:
    """Return a cut's number of tokens."""
    return tokens_of(torch.tensor(json.loads(cut.supervisions[0].text)))


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    sharded = case.variant == "iterable"
    cuts = {
        source: CutSet(Shard(source) if sharded else [cut_of(source, key) for key in range(ROWS)]).repeat()
        for source in WEIGHTS
    }
    meter, mixed = track(cuts, WEIGHTS, tokens=tokens_of_cut, seed="randomized" if sharded else 0)
    if case.variant == "wrong":
        mixed = mixed.filter(of_thirds)
    if sharded or case.variant == "twice":
        random.seed(rank)
        sampler = DynamicCutSampler(mixed, max_cuts=BATCH, world_size=1, rank=0)
        loader = DataLoader(
            IterableDatasetWrapper(WithTags(Speech()), sampler),
            batch_size=None,
            num_workers=case.workers,
            worker_init_fn=make_worker_init_fn(rank=rank, world_size=ranks),
        )
        return Loading(meter=meter, batches=loader, rows=lambda batch: rows_of(batch["x"]))
    sampler = DynamicCutSampler(mixed, max_cuts=BATCH, shuffle=True, shuffle_buffer_size=40)
    if case.variant == "joined":
        sampler.map(joined)
    if saved is not None:
        sampler.load_state_dict(deepcopy(saved))
    loader = DataLoader(WithTags(Speech()), sampler=sampler, batch_size=None, num_workers=case.workers)
    return Loading(meter=meter, batches=loader, rows=lambda batch: rows_of(batch["x"]), save=sampler.state_dict)


def of_thirds(cut: Any) -> bool:
    """Return whether a filter after the mix lets a cut through: it drops two thirds of the prose."""
    source, key, *_ = json.loads(cut.supervisions[0].text)
    return bool(source == 1 or key % 3 == 0)


if __name__ == "__main__":
    run_cases(begin)
