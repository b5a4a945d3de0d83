"""litdata: both batching methods of `CombinedStreamingDataset`, datasets of a user's own class, and no weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litdata
import torch.distributed as dist
from litdata.streaming import Cache

from otel_train.integrations import litdata as integration
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.epochs import Epochs
from tests.integrations.support.payload import SOURCES, WEIGHTS, rows_of, sample

LENGTHS = {"code": 100, "prose": 300}
BATCH = 8


class PairDataset(litdata.StreamingDataset):  # type: ignore[misc]
    """A dataset of a user's own, whose samples are tuples."""

    def __getitem__(self, index: Any) -> Any:
        row = super().__getitem__(index)
        return row["x"], row["tokens"]


def write(folder: Path) -> None:
    """Write the datasets, each rank its part."""
    for source in SOURCES:
        cache = Cache(str(folder / source), chunk_size=10)  # what `litdata.optimize` has its worker processes write to
        for index, key in enumerate(range(dist.get_rank(), LENGTHS[source], dist.get_world_size())):
            cache[index] = sample(source, key)
        cache.done()
        cache.merge()


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    folder = Path(sys.argv[1], "litdata")
    is_new = not folder.exists()
    dist.barrier()
    if is_new:
        write(folder)
    dist.barrier()
    pairs = case.variant == "pairs"
    weights = [1, 1] if case.variant == "wrong" else list(WEIGHTS.values())
    dataset = litdata.CombinedStreamingDataset(
        [
            (PairDataset if pairs else litdata.StreamingDataset)(str(folder / source), shuffle=True)
            for source in SOURCES
        ],
        weights=None if case.variant == "all" else weights,
        iterate_over_all=case.variant == "all",
        batching_method="per_stream" if case.variant == "per_stream" else "stratified",
    )
    meter, tagged = integration.track(
        dataset, weights=WEIGHTS if case.variant == "wrong" else None, tokens=1 if pairs else "tokens"
    )
    persistent = case.variant == "persistent"
    loader = litdata.StreamingDataLoader(
        tagged, batch_size=BATCH, num_workers=case.workers, persistent_workers=persistent
    )
    if saved is not None:
        loader.load_state_dict(saved["loader"])
    epochs = Epochs(loader, saved["epoch"] if saved else 0)

    def rows(batch: Any) -> list[Row]:
        return rows_of(batch[0] if pairs else batch["x"], epochs.number)

    return Loading(
        meter=meter,
        batches=epochs,
        rows=rows,
        save=lambda: {"loader": loader.state_dict(), "epoch": epochs.number},
    )


if __name__ == "__main__":
    run_cases(begin, {"per_stream": 200})  # a step is one draw
