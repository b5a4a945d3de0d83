"""grain: mixes of map-style and of iterable datasets, with threads or workers, resumed by the iterator's state."""

from __future__ import annotations

from typing import Any

import grain
import torch
import torch.distributed as dist

from otel_train.integrations.grain import track
from tests.integrations.support.case_loop import Case, Loading, run_cases
from tests.integrations.support.payload import LATER, WEIGHTS, numbers, rows_of, tokens_of

ROWS = 100
BATCH = 8


class Documents:
    """The samples of a source, by index."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        x = torch.tensor(numbers(self.source, index))
        return {"x": x.numpy(), "tokens": tokens_of(x)}


def of_thirds(element: Any) -> bool:
    """Return whether a filter after the mix lets an element through: it drops two thirds of the prose."""
    return bool(element["x"][0] == 1 or element["x"][1] % 3 == 0)


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    weights = LATER if case.variant == "sources" and saved is not None else WEIGHTS
    sources = {}
    for source in weights:
        part = grain.MapDataset.source(Documents(source))[dist.get_rank() :: dist.get_world_size()]
        length = len(part)
        sources[source] = part.shuffle(seed=1).map_with_index(
            lambda index, row, length=length: stamped(row, index // length)
        )
    reading = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
    if case.variant in ("iter", "sources"):
        parts = {source: part.repeat().to_iter_dataset(reading) for source, part in sources.items()}
        meter, mixed = track(parts, weights, tokens="tokens", repeat=lambda row: int(row["x"][2]))
    else:
        meter, mixed = track(sources, weights, tokens="tokens")
        mixed = mixed.repeat()
        mixed = (mixed.filter(of_thirds) if case.variant == "wrong" else mixed).to_iter_dataset(reading)
    if case.workers:
        mixed = mixed.mp_prefetch(grain.MultiprocessingOptions(num_workers=case.workers))
    batches = iter(mixed.batch(BATCH))
    if saved is not None:
        batches.set_state(saved)
    return Loading(
        meter=meter, batches=batches, rows=lambda batch: rows_of(torch.as_tensor(batch["x"])), save=batches.get_state
    )


def stamped(row: Any, number: int) -> Any:
    """Return a row whose payload has the number of its pass."""
    x = row["x"].copy()
    x[2] = number
    return {**row, "x": x}


if __name__ == "__main__":
    run_cases(begin)
