"""webdataset: `RandomMix`, batches made by its own stages, shards of one source each, ranks that draw alike."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import webdataset as wds

from otel_train.integrations import webdataset as integration
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, numbers, rows_of, tokens_of

LENGTHS = {"code": 120, "prose": 360}
SHARD = 10
BATCH = 8


def write(folder: Path) -> None:
    """Write the shards."""
    folder.mkdir()
    for source in SOURCES:
        with wds.ShardWriter(str(folder / f"{source}-%03d.tar"), maxcount=SHARD, verbose=0) as writer:
            for key in range(LENGTHS[source]):
                writer.write({"__key__": f"{source}{key}", "x.json": numbers(source, key)})


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as the model needs it."""
    x = torch.tensor(row["x.json"])
    return {"__key__": row["__key__"], "__url__": row["__url__"], "x": x, "tokens": tokens_of(x)}


def source_of(url: str) -> str:
    """Return the source of a shard."""
    return Path(url).name.partition("-")[0]


def shards(folder: Path, *sources: str) -> Any:
    """Return an endless dataset of the shards of some sources, this rank's and this worker's."""
    urls = [str(path) for source in sources for path in sorted(folder.glob(f"{source}-*.tar"))]
    splitting = {"nodesplitter": wds.split_by_node, "shardshuffle": 100, "seed": 1}
    return wds.WebDataset(urls, **splitting).decode().map(decoded).repeat()


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case; webdataset has no state to begin from."""
    folder = Path(sys.argv[1], "webdataset")
    if dist.get_rank() == 0 and not folder.exists():
        write(folder)
    dist.barrier()
    seed = 0 if case.variant == "alike" else dist.get_rank()
    random.seed(f"{seed} {saved}")
    torch.manual_seed(seed)
    if case.variant == "shards":
        dataset = shards(folder, *SOURCES).shuffle(100)
        meter, tagged = integration.track_shards(dataset, WEIGHTS, source_of, tokens="tokens")
    else:
        probabilities = [1, 1] if case.variant == "wrong" else list(WEIGHTS.values())
        mix = wds.RandomMix([shards(folder, source) for source in SOURCES], probabilities)
        weights = WEIGHTS if case.variant == "wrong" else None
        meter, tagged = integration.track(mix, SOURCES, weights=weights, tokens="tokens")
    if case.variant == "stages":
        batched = wds.DataPipeline(tagged, wds.shuffle(20), wds.batched(5))
        loader = wds.WebLoader(batched, batch_size=None, num_workers=case.workers)
        loader = loader.unbatched().shuffle(20).batched(BATCH)
    else:
        loader = wds.WebLoader(tagged, batch_size=BATCH, num_workers=case.workers)

    def rows(batch: Any) -> list[Row]:
        return rows_of(batch["x"])

    return Loading(meter=meter, batches=loader, rows=rows, save=lambda: "resumed")


if __name__ == "__main__":
    run_cases(begin)
