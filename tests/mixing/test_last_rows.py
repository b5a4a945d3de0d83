"""The source of each row of the batch that the training loop has, as a loss by source needs them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from otel_train.mixing import MixedCollate, SourceMeter, StreamMixingDataset, TaggedDataset, pack_tag
from tests.support.number_streams import Numbers

SOURCES = {"a": 1, "b": 2, "c": 0.5}
WORDS = [pack_tag("b", 3), pack_tag("a", 0), 0, -1, pack_tag("elsewhere", 4), pack_tag("c", 5)]
INDICES = [1, 0, -1, -2, -1, 2]


@pytest.mark.parametrize(
    "words",
    [
        torch.tensor(WORDS),
        torch.tensor(WORDS).view(2, 3),
        np.array(WORDS),
        WORDS,
        tuple(WORDS),
    ],
)
def test_rows_keep_batch_order(words: Any) -> None:
    """Rows of unknown sources and without a tag are -1, padding is -2, each where its row is."""
    meter = SourceMeter(SOURCES)
    assert meter.row_sources() is None
    meter.count({"x": 1, "otel_train": words})
    assert torch.equal(_indices(meter), torch.tensor(INDICES))
    meter.count({"x": 1})
    assert meter.row_sources() is None
    meter.count_tags(words)
    assert _indices(meter).tolist() == INDICES
    for copied in (copy.deepcopy(meter), pickle.loads(pickle.dumps(meter))):
        assert copied.row_sources() is None


def test_parts_are_joined() -> None:
    """A batch with several tagged parts has the rows of all, in order; many sources have indices of their own."""
    meter = SourceMeter({f"source {number}": 1 for number in range(200)})
    first, second = ([pack_tag(f"source {number}", 1) for number in part] for part in (range(150), range(150, 200)))
    meter.count([{"otel_train": torch.tensor(first)}, {"otel_train": second}])
    assert _indices(meter).tolist() == list(range(200))


def _indices(meter: SourceMeter) -> torch.Tensor:
    sources = meter.row_sources()
    assert sources is not None
    return sources


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_last_batch_counts(workers: int) -> None:
    """Behind workers that run ahead, the sources are those of the batch that the loop has."""
    meter = SourceMeter({"a": 1, "b": 1})
    tagged = [TaggedDataset([{"x": number}] * 30, meter.tag(name)) for number, name in enumerate("ab")]
    loader: DataLoader[Any] = DataLoader(ConcatDataset(tagged), batch_size=7, shuffle=True, num_workers=workers)
    for batch in meter.counted(loader):
        assert torch.equal(_indices(meter), batch["x"])


@pytest.mark.parametrize("collate", [None, MixedCollate(lambda rows: {"value": [row["value"] for row in rows]})])
def test_mixed_rows_have_modalities(collate: Any) -> None:
    """The mixing dataset gives the modality of each row of the batch that was read last, whoever collates."""
    streams = [Numbers(name, name[0], 50) for name in ("a1", "a2", "b1")]
    dataset = StreamMixingDataset(streams, {"a": 1, "b": 1}, readers=3, batch_size=8)
    assert dataset.row_sources() is None
    batches = iter(DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=collate))
    for _ in range(5):
        batch = next(batches)
        before = dataset.row_sources()
        batch["value"]
        sources = dataset.row_sources()
        assert sources != before or collate is None
        assert len(sources or ()) == 8
        if collate is None:
            assert [("a", "b")[source] for source in sources or ()] == batch["modality"]
