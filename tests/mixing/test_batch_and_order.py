"""The order of the data, which must never change, and what counts as reading a batch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import MixedBatch, MixingMeter, StreamMixingDataset, WeightSchedule
from otel_train.mixing.dealing import StreamStart, deal


@dataclass
class Numbers:
    """A stream of seven rows."""

    id: str
    modality: str

    def __len__(self) -> int:
        return 7

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row, and one token."""
        return {"value": position}, 1


def make(weights: Any = None, **changes: Any) -> StreamMixingDataset:
    """Return a dataset of six streams of two modalities."""
    streams = [Numbers(f"s{index}", "ab"[index % 2]) for index in range(6)]
    return StreamMixingDataset(streams, weights or {"a": 1, "b": 2}, **{"readers": 4, "batch_size": 2, **changes})


def test_data_order_never_changes() -> None:
    """Another order in another release would make resumed jobs differ from those that never stopped."""
    order = [(row["stream"], row["position"]) for row in islice(make(seed=11), 8)]
    assert order == [("s3", 0), ("s4", 0), ("s4", 1), ("s3", 1), ("s1", 0), ("s0", 0), ("s3", 2), ("s1", 1)]


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
    """Whichever is read first, and also when another batch was read in between."""
    dataset = make()
    made = [
        MixedBatch({"pick": torch.arange(pick, pick + 2), "length": torch.ones(2)}, dataset._token) for pick in (0, 2)
    ]
    batches = [made[0], copies(made[0])]
    for batch in (batches[first], made[1], batches[1 - first]):
        assert len(batch["length"]) == 2
    assert dataset.drain_step_metrics()[rows.PICKS.wandb_key] == 4


def test_copied_dataset_counts_own_batches() -> None:
    """And the one that it was copied from counts none of them."""
    dataset = make()
    copied = copy.deepcopy(dataset)
    for batch in islice(DataLoader(copied, batch_size=2, num_workers=1), 2):
        assert len(batch["value"]) == 2
    assert [each.drain_step_metrics()[rows.PICKS.wandb_key] for each in (copied, dataset)] == [4, 0]


def test_resume_keeps_targets_of_step() -> None:
    """The weights in force at the saved pick are those of its step, not those of step 1."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (2, {"b": 1.0})))
    whole, resumed = make(schedule, rows_per_step=4), make(schedule, rows_per_step=4)
    picks = iter(whole)
    for _ in range(6):
        next(picks)
    resumed.load_state_dict(whole.state_dict())
    list(islice(picks, 2)), list(islice(resumed, 2))
    key = f"{rows.MODALITY_TARGET.wandb_key}/b"
    assert resumed.drain_step_metrics(2)[key] == whole.drain_step_metrics(2)[key] == 0.5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"readers": None, "slots": []}, "slots must name the modality of at least one slot"),
        ({"rows_per_step": 0}, "rows_per_step must be a positive whole number, got 0"),
        ({"reader_bias": [1, 1, 1, float("nan")]}, r"reader_bias\[3\] must be a finite number"),
    ],
)
def test_empty_arguments_raise(changes: dict[str, Any], complaint: str) -> None:
    """What would be taken for a default, or for any number, is an error."""
    with pytest.raises(ConfigurationError, match=complaint):
        make(**changes)


def test_modalities_are_dealt_on() -> None:
    """Each modality is dealt on from where the last one ended, so that four streams are enough for four ranks."""
    hands = deal([[StreamStart("a0")], [StreamStart("b0"), StreamStart("b1")], [StreamStart("c0")]], [0] * 4)
    assert [[start.stream for start in hand] for hand in hands] == [["a0"], ["b0"], ["b1"], ["c0"]]


def test_saved_meter_knows_previous_pick() -> None:
    """The first pair of an interval is made with the last pick of the one before."""
    meter = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    meter.open(0, "a")
    meter.open(1, "b")
    meter.pick(0)
    meter.drain_measurements()
    meter.pick(1)
    loaded = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    loaded.load_state_dict(meter.state_dict())
    loaded.pick(1)
    assert loaded.drain_step_metrics()[rows.SWITCH_RATE.wandb_key] == 1 / 2


def test_resharding_keeps_decayed_counts() -> None:
    """The new ranks' decayed counts add up to the old ranks'."""
    old = [make(rank=rank, world_size=2) for rank in range(2)]
    for rank, dataset in enumerate(old):
        list(islice(dataset, 10 + rank))
        dataset.drain_measurements(5)
    states = [dataset.state_dict() for dataset in old]
    new = [make(rank=rank, world_size=3) for rank in range(3)]
    for dataset in new:
        dataset.load_state_dict(states)
    for name in ("counts", "targets"):
        before = [sum(column) for column in zip(*(state["meter"][name] for state in states), strict=True)]
        after = [sum(column) for column in zip(*(each.state_dict()["meter"][name] for each in new), strict=True)]
        assert after == pytest.approx(before, rel=1e-12)
