"""Batches that a worker process made: what counts as reading one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from otel_train.catalogue import rows
from otel_train.mixing import MixedBatch, StreamMixingDataset
from tests.support.number_streams import Numbers


def make() -> StreamMixingDataset:
    """Return a dataset of six streams of two modalities."""
    streams = [Numbers(f"s{index}", "ab"[index % 2], 7) for index in range(6)]
    return StreamMixingDataset(streams, {"a": 1, "b": 2}, readers=4, batch_size=2)


@pytest.mark.parametrize(
    "read",
    [
        lambda batch: batch["value"],
        lambda batch: batch.get("value"),
        lambda batch: batch.pop("value"),
        lambda batch: batch.pop("pick"),
        lambda batch: batch.setdefault("value"),
        lambda batch: batch.popitem(),
        lambda batch: {**batch},
        dict,
        lambda batch: batch.copy(),
        lambda batch: batch | {"more": 1},
        lambda batch: batch.items(),
    ],
)
def test_any_read_counts_batch(read: Callable[[MixedBatch], Any]) -> None:
    """Taking a value out with pop is how many training loops get at their labels."""
    dataset = make()
    batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=1)))
    read(batch)
    assert dataset.drain_step_metrics()[rows.PICKS.wandb_key] == 2


@pytest.mark.modes
@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
@pytest.mark.parametrize("first", [0, 1])
def test_batch_copies_count_once(copies: Callable[[MixedBatch], MixedBatch], first: int) -> None:
    """A batch and its copy count once, whichever is read first, also with another batch in between."""
    dataset = make()
    made = [
        MixedBatch({"pick": torch.arange(pick, pick + 2), "length": torch.ones(2)}, dataset._token) for pick in (0, 2)
    ]
    batches = [made[0], copies(made[0])]
    for batch in (batches[first], made[1], batches[1 - first]):
        assert len(batch["length"]) == 2
    assert dataset.drain_step_metrics()[rows.PICKS.wandb_key] == 4


def test_copied_dataset_counts_own_batches() -> None:
    """The dataset that it was copied from counts none of its batches."""
    dataset = make()
    copied = copy.deepcopy(dataset)
    for batch in islice(DataLoader(copied, batch_size=2, num_workers=1), 2):
        assert len(batch["value"]) == 2
    assert [source.drain_step_metrics()[rows.PICKS.wandb_key] for source in (copied, dataset)] == [4, 0]
