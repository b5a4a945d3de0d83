"""mosaicml-streaming: its batching methods, samples that are tuples, a collate function that keeps what it likes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import streaming
import torch
import torch.distributed as dist

import otel_train
from otel_train.integrations import mosaic
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.epochs import Epochs
from tests.integrations.support.payload import SOURCES, WEIGHTS, WIDTH, numbers, rows_of, tokens_of

LENGTHS = {"code": 100, "prose": 300}
BATCH = 8
METHODS = ("random", "stratified", "per_stream", "device_per_stream")


class PairDataset(streaming.StreamingDataset):  # type: ignore[misc]
    """A dataset of a user's own, whose samples are tuples."""

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return torch.tensor(sample["x"]), sample["tokens"]


def write(folder: Path) -> None:
    """Write the streams."""
    for source in SOURCES:
        columns = {"x": f"ndarray:int64:{WIDTH}", "tokens": "int"}
        with streaming.MDSWriter(out=str(folder / source), columns=columns, size_limit=1 << 12) as writer:
            for key in range(LENGTHS[source]):
                x = torch.tensor(numbers(source, key))
                writer.write({"x": x.numpy(), "tokens": tokens_of(x)})


def stacked(samples: list[Any]) -> Any:
    """Collate as many users do: only what the model is given."""
    return {"inputs": torch.stack([torch.as_tensor(sample["x"]) for sample in samples])}


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    folder = Path(sys.argv[1], "mds")
    if dist.get_rank() == 0 and not folder.exists():
        write(folder)
    dist.barrier()
    wrong = case.variant == "wrong"
    streams = [
        streaming.Stream(local=str(folder / source), proportion=1.0 if wrong else weight)
        for source, weight in WEIGHTS.items()
    ]
    pairs = case.variant == "pairs"
    method = case.variant if case.variant in METHODS else "random"
    dataset = (PairDataset if pairs else streaming.StreamingDataset)(
        streams=streams, batch_size=BATCH, shuffle=True, batching_method=method
    )
    meter, tagged = mosaic.track(dataset, weights=WEIGHTS if wrong else None, tokens=1 if pairs else "tokens")
    collate = otel_train.Collate(stacked) if case.variant == "collated" else None
    loader = streaming.StreamingDataLoader(tagged, batch_size=BATCH, num_workers=case.workers, collate_fn=collate)
    if saved is not None:
        loader.load_state_dict(saved["loader"])
    epochs = Epochs(loader, saved["epoch"] if saved else 0)

    def rows(batch: Any) -> list[Row]:
        x = batch[0] if pairs else batch["inputs" if case.variant == "collated" else "x"]
        return rows_of(x, epochs.number)

    return Loading(
        meter=meter,
        batches=epochs,
        rows=rows,
        save=lambda: {"loader": loader.state_dict(), "epoch": epochs.number},
    )


if __name__ == "__main__":
    run_cases(begin)
