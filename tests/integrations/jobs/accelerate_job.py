"""accelerate: loaders that `prepare` has wrapped, which shard for each process or read on process 0 and send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

os.environ["ACCELERATE_USE_CPU"] = "true"

import torch  # after the environment that accelerate reads
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

import otel_train
from otel_train.integrations import torch_datasets
from tests.integrations.support.case_loop import SAVED_AFTER, Case, Loading, Row, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, rows_of, sample

BATCH = 8
# Not a multiple of the batch: accelerate fills up the last batch of a pass with rows of the first one.
PASS = 20 * 2 * BATCH - 11


class Documents(Dataset[Any]):
    """The samples of a source, as mappings or as tuples."""

    def __init__(self, source: str, rows: int, *, tuples: bool) -> None:
        self.source = source
        self.rows = rows
        self.tuples = tuples

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Any:
        row = sample(self.source, index)
        return (row["x"], row["tokens"]) if self.tuples else row


class Stream(IterableDataset[Any]):
    """The samples of both sources, a part for each worker; `accelerate` deals them out to the processes."""

    def __init__(self, tags: dict[str, Any]) -> None:
        self.tags = tags

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        choice = torch.Generator().manual_seed(worker.id if worker else 0)
        for index in range(1000):
            source = SOURCES[0] if torch.rand((), generator=choice) < 0.25 else SOURCES[1]
            yield self.tags[source](sample(source, index))


class SkippedOnce:
    """The loader as it is resumed: without its first batches in the first pass."""

    def __init__(self, skipped: Any, loader: Any) -> None:
        self.loaders = [skipped, loader]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loaders.pop(0) if len(self.loaders) > 1 else self.loaders[0])


def make_map(case: Case) -> tuple[Any, Any]:
    """Return a meter and a loader of map-style datasets that a sampler mixes."""
    tuples = case.variant in ("tuples", "collated")
    sources = {source: Documents(source, 40 + 40 * n, tuples=tuples) for n, source in enumerate(SOURCES)}
    weights = dict.fromkeys(SOURCES, 1.0) if case.variant == "wrong" else WEIGHTS
    row_weights = [weights[source] / len(rows) for source, rows in sources.items() for _ in range(len(rows))]
    sampler = WeightedRandomSampler(row_weights, PASS, generator=torch.Generator().manual_seed(3))
    meter, dataset = torch_datasets.track(sources, sampler, tokens=1 if tuples else "tokens")
    collate = otel_train.Collate(default_collate) if case.variant == "collated" else None
    return meter, DataLoader(dataset, BATCH, sampler=sampler, num_workers=case.workers, collate_fn=collate)


def make_stream(case: Case) -> tuple[Any, Any]:
    """Return a meter and a loader of an iterable dataset."""
    meter = otel_train.SourceMeter(WEIGHTS)
    dataset = Stream({source: meter.tag(source, tokens="tokens") for source in SOURCES})
    return meter, DataLoader(dataset, BATCH, num_workers=case.workers)


def rows(batch: Any) -> list[Row]:
    """Read a batch's payload."""
    return rows_of(batch["x"] if isinstance(batch, dict) else batch[0])


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    modes = {"shard": False, "stream": None, "stream_shard": False, "stateful": False}
    options = DataLoaderConfiguration(
        dispatch_batches=modes.get(case.variant, True),
        split_batches=case.variant == "split",
        use_stateful_dataloader=case.variant == "stateful",
    )
    accelerator = Accelerator(dataloader_config=options)
    meter, loader = (make_stream if case.variant.startswith("stream") else make_map)(case)
    if case.variant == "wrong":
        meter.set_weights(WEIGHTS)
    batches = accelerator.prepare(loader)
    if case.variant == "stateful":
        if saved is not None:
            batches.load_state_dict(saved)
        return Loading(meter=meter, batches=batches, rows=rows, save=batches.state_dict)
    if saved is not None:
        batches = SkippedOnce(accelerator.skip_first_batches(batches, saved), batches)
    return Loading(meter=meter, batches=batches, rows=rows, save=lambda: SAVED_AFTER)


if __name__ == "__main__":
    run_cases(begin)
