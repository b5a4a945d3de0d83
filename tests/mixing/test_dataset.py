"""The mixing dataset: workers, ends of streams, resuming with the same and another world size."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import FileStream, MixedBatch, StreamMixingDataset
from tests.support.number_streams import Numbers, held

PICKS = rows.PICKS.wandb_key
Seen = list[tuple[list[str], list[int], dict[str, float]]]


def streams(count: int = 12, length: int = 5) -> list[Numbers]:
    """Return streams of three modalities."""
    return [Numbers(f"s{index}", "abc"[index % 3], length + index) for index in range(count)]


def make(kind: type[StreamMixingDataset] = StreamMixingDataset, **changes: Any) -> StreamMixingDataset:
    """Return a dataset of one of two ranks."""
    arguments = {"readers": 5, "batch_size": 4, "rank": 0, "world_size": 2, "seed": 3, **changes}
    return kind(streams(), {"a": 1, "b": 2, "c": 3}, **arguments)


def consume(dataset: StreamMixingDataset, breaks: tuple[int, ...] = (6, 15), first: int = 1, **loader: Any) -> Seen:
    """Go through a DataLoader as a training loop does, leaving it and coming back."""
    seen, step = [], first - 1
    loading = DataLoader(dataset, batch_size=4, **loader)
    for stop in breaks:
        for batch in loading:
            step += 1
            values = batch["value"].tolist()
            seen.append((batch["stream"], values, dataset.drain_step_metrics(step)))
            if step == stop:
                break
    return seen


@pytest.mark.parametrize(
    ("late", "loader"),
    [
        (False, {"num_workers": 1, "multiprocessing_context": "spawn"}),
        (False, {"num_workers": 2}),
        (True, {"num_workers": 3, "prefetch_factor": 5}),
        (False, {"num_workers": 2, "persistent_workers": True}),
        (True, {"num_workers": 2, "persistent_workers": True}),
    ],
    ids=str,
)
def test_workers_change_no_batch(late: bool, loader: dict[str, Any]) -> None:
    """Picks count for the step whose batch has them, however far workers run ahead, and when a loop breaks off."""

    class LateDataset(StreamMixingDataset):
        """A dataset whose second worker begins late."""

        def __iter__(self) -> Iterator[MixedBatch]:
            worker = get_worker_info()
            if worker is not None and worker.id == 1:
                time.sleep(0.3)
            yield from super().__iter__()

    assert consume(make(LateDataset if late else StreamMixingDataset), **loader) == consume(make())


def test_prefetched_batches_are_not_counted() -> None:
    """A batch counts when the training loop reads from it, once."""
    dataset = make()
    iterator = iter(DataLoader(dataset, batch_size=4, num_workers=1, prefetch_factor=4))
    batch = next(iterator)
    assert dataset.drain_step_metrics()[PICKS] == 0
    assert [len(batch["value"]), len(batch["value"])] == [4, 4]
    assert dataset.drain_step_metrics()[PICKS] == 4


def test_killed_worker_loses_no_count() -> None:
    """PyTorch's error comes; what was read before it is counted, no more, and a new loader goes on there."""
    dataset = make()
    iterator = iter(DataLoader(dataset, batch_size=4, num_workers=1, prefetch_factor=3))
    assert len(next(iterator)["value"]) == 4
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* is killed by signal"):  # noqa: PT012
        os.kill(iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        time.sleep(60)  # PyTorch raises from its handler of SIGCHLD, wherever the training loop is
    assert dataset.meter.drain_step_metrics(1)[PICKS] == 4
    del iterator
    assert consume(dataset, (4,), 2, num_workers=1) == consume(make(), (4,))[1:]


def test_own_collate_hands_over_picks(caplog: pytest.LogCaptureFixture) -> None:
    """Without that, the loss of the counts is said; with it they are right."""
    dataset = make()
    for batch in DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=_numbers_only):
        assert dataset.drain_step_metrics()[PICKS] == 0
        assert "consume()" in caplog.text
        dataset.consume(batch)
        assert dataset.drain_step_metrics()[PICKS] == 4
        break


def _numbers_only(batch: list[MixedBatch]) -> dict[str, list[int]]:
    return {name: [row[name] for row in batch] for name in ("pick", "length")}


def test_reader_names_outlive_renames() -> None:
    """The names that the outside relies on give what the public ones do."""
    dataset = make()
    next(iter(dataset))
    assert dataset.modality_for_reader == list(dataset.slots)
    assert sorted(dataset.last_picked_step) == [1] * 5
    assert (dataset._last_picked_step, dataset._modality_for_reader) == (
        dataset.last_picked_step,
        dataset.modality_for_reader,
    )


def test_other_batch_size_raises() -> None:
    """Workers make batches of the dataset's size; picks that come in another order are an error that names both."""
    dataset = make(batch_size=3)
    batches = iter(DataLoader(dataset, batch_size=4, num_workers=2))  # whose workers go on: all must have begun
    batch = next(batches)
    with pytest.raises(ConfigurationError, match=r"give the DataLoader the dataset's batch_size \(3\)"):
        batch["value"]


@pytest.mark.parametrize(("at_end", "times"), [("next", {1}), ("cycle", {1, 2, 3, 4}), ("again", set(range(3, 10)))])
def test_end_of_stream(at_end: str, times: set[int]) -> None:
    """NEXT plays each stream once and ends; CYCLE goes round; AGAIN stays with the stream that it has."""
    dataset = StreamMixingDataset(streams(6), {"a": 1, "b": 1, "c": 1}, readers=3, at_end=at_end)
    lengths = {stream.id: len(stream) for stream in streams(6)}
    ended: Counter[str] = Counter()
    for row in islice(dataset, 130):
        ended[row["stream"]] += row["position"] == lengths[row["stream"]] - 1
    assert set(ended.values()) <= times
    assert len(ended) == (3 if at_end == "again" else 6)
    last = dataset.drain_step_metrics()
    assert last[rows.ACTIVE_READERS.wandb_key] == (0 if at_end == "next" else 3)
    assert last[rows.RESTARTS.wandb_key] == (3 if at_end == "next" else sum(ended.values()))


@pytest.mark.modes
def test_resume_equals_whole_run() -> None:
    """The batches and all values after a resume are those of a run that went on, whatever the loader."""
    whole = consume(make(), (15,))
    for loader in ({}, {"num_workers": 2}):
        stopped, resumed = make(), make()
        begin = consume(stopped, (6,), **loader)
        resumed.load_state_dict(stopped.state_dict())
        assert begin + consume(resumed, (15,), first=7, **loader) == whole


def test_resharding_keeps_each_stream_once(caplog: pytest.LogCaptureFixture) -> None:
    """2 to 3 to 1 to 2 ranks: none twice, none lost, each at its position, and rank 0 says it once each time."""
    caplog.set_level(logging.INFO)
    ranks = [make(rank=rank) for rank in range(2)]
    step = 0
    for world_size in (3, 1, 2):
        for dataset in ranks:
            consume(dataset, (step + 4,), first=step + 1)
        step += 4
        before = [dataset.state_dict() for dataset in ranks]
        old, ranks = len(ranks), [make(rank=rank, world_size=world_size) for rank in range(world_size)]
        caplog.clear()
        for dataset in ranks:
            dataset.load_state_dict(before)
        after = [dataset.state_dict() for dataset in ranks]
        positions = [{entry: state["rank"] for state in side for entry in held(state)} for side in (before, after)]
        assert sorted(positions[0]) == sorted(positions[1])
        assert [sum(map(len, map(held, side))) for side in (before, after)] == [12, 12]
        moved = sum(positions[1][entry] != rank for entry, rank in positions[0].items())
        assert [record.getMessage().split(",")[0] for record in caplog.records] == [
            f"resharded: world size {old} -> {world_size}"
        ]
        assert f"12 streams, {moved} moved to another rank, at step {step}" in caplog.text


def test_changed_weights_change_targets() -> None:
    """The share of a modality that gets its weight at step 3 is counted from there."""
    dataset = StreamMixingDataset(
        streams(), lambda step: {"a": 1} if step < 3 else {"b": 1}, readers=3, rows_per_step=2, batch_size=2
    )
    rows_of_steps = iter(dataset)
    targets = []
    for step in range(1, 5):
        modalities = [next(rows_of_steps)["modality"] for _ in range(2)]
        assert modalities == (["a"] * 2 if step < 3 else ["b"] * 2)
        targets.append(dataset.drain_step_metrics(step)["stream_mixing/modality_target/b"])
    assert targets == pytest.approx([0, 0, 1 / 3, 1 / 2], abs=1e-3)


def test_read_error_names_stream(tmp_path: Path) -> None:
    """A file that has become shorter is named with its row."""
    path = tmp_path / "text"
    path.write_bytes(bytes(200))
    dataset = StreamMixingDataset([FileStream("text", "a", str(path), 64)], {"a": 1}, readers=1)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="has become shorter") as caught:
        next(iter(dataset))
    assert caught.value.__notes__ == ["while reading row 0 of stream 'text' in slot 0"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"readers": None}, "readers must be given"),
        ({"readers": 2}, "readers must be at least"),
        ({"readers": None, "slots": ["x"]}, "slots names the modality 'x'"),
        ({"slots": ["a"]}, "readers is 5, but slots names 1"),
        ({"reader_bias": [1.0]}, "reader_bias must be 5 numbers, got 1"),
        ({"at_end": "stop"}, "at_end must be one of next, cycle, again, got 'stop'"),
        ({"readers": 2.5}, "readers must be a positive whole number, got 2.5"),
        ({"readers": True}, "readers must be"),
        ({"slots": "abc"}, "slots must name the modality of at least one slot, got 'abc'"),
        ({"reader_bias": 1.0}, "reader_bias must be 5 numbers, got 1.0"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"horizon": float("inf")}, "horizon must be a finite number"),
        ({"rank": 1.0}, "rank must be"),
        ({"world_size": 0}, "world_size must be"),
        ({"batch_size": "4"}, "batch_size must be a positive whole number, got '4'"),
        ({"batch_size": 0}, "batch_size must be a positive whole number, got 0"),
        ({"rank": 2}, "rank must be in 0 .. 1, got 2"),
        ({"rank": None}, "give both rank and world_size"),
        ({"readers": None, "slots": []}, "slots must name the modality of at least one slot"),
        ({"rows_per_step": 0}, "rows_per_step must be a positive whole number, got 0"),
        ({"reader_bias": [1, 1, 1, 1, math.nan]}, r"reader_bias\[4\] must be a finite number"),
    ],
)
def test_wrong_arguments_raise(changes: dict[str, Any], complaint: str) -> None:
    """The message says which field breaks a rule."""
    with pytest.raises(ConfigurationError, match=complaint):
        make(**changes)


def test_unfitting_states_raise() -> None:
    """A rank's state alone can't be resharded, nor one of a job with other streams."""
    state = make().state_dict()
    with pytest.raises(
        StateMismatchError, match=r"the saved job had 2 ranks, the states given are those of ranks \[0\]"
    ):
        make(world_size=3).load_state_dict(state)
    other = StreamMixingDataset([Numbers("x", "a", 3)], {"a": 1}, readers=5)
    with pytest.raises(StateMismatchError, match="none of the 12 streams of the saved state is given now: it has 's0'"):
        other.load_state_dict({**state, "world_size": 1})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pick": None}, "the batch must have 'pick'"),
        ({"length": None}, "the batch must have 'length'"),
        (
            {"length": torch.tensor([1.0, math.nan, 1.0, 1.0])},
            "length must be a finite number that is not negative, got nan",
        ),
        ({"length": [1, -1, 1, 1]}, "length must be a finite number"),
        ({"length": [1, 1]}, "the batch has 4 picks and 2 lengths"),
        ({"pick": ["a", "b", "c", "d"]}, "the batch must have 'pick'"),
        ({"pick": [1, 2, 3, 4]}, "the batch holds picks 1 to 4, the next one is 0"),
    ],
)
def test_wrong_batch_counts_nothing(change: dict[str, Any], complaint: str) -> None:
    """A batch of an own collate function is checked before any of its rows is counted."""
    dataset = make()
    with pytest.raises(ConfigurationError, match=complaint):
        dataset.consume({"pick": [0, 1, 2, 3], "length": [1, 1, 1, 1], **change})
    dataset.consume({"pick": [0, 1, 2, 3], "length": torch.tensor([1, 1, 1, 1])})
    assert dataset.drain_step_metrics()[PICKS] == 4


def test_own_rows_are_counted_already() -> None:
    """The training loop with a collate function of its own is the same with and without workers."""
    dataset = make()
    for batch in islice(DataLoader(dataset, batch_size=4, collate_fn=_numbers_only), 3):
        dataset.consume(batch)
    assert dataset.drain_step_metrics()[PICKS] == 12


@pytest.mark.parametrize("tokens", [math.nan, -1, "12", None])
def test_wrong_token_count_raises(monkeypatch: pytest.MonkeyPatch, tokens: Any) -> None:
    """The error says which stream and row, wherever it is read."""
    stream = Numbers("s", "a", 3)
    monkeypatch.setattr(stream, "read", lambda _: ({"value": 0}, tokens))
    with pytest.raises(ConfigurationError, match="tokens must be a finite number") as caught:
        next(iter(StreamMixingDataset([stream], {"a": 1}, readers=1)))
    assert caught.value.__notes__ == ["while reading row 0 of stream 's' in slot 0"]


def test_data_order_never_changes() -> None:
    """Another order in another release would make resumed jobs differ from those that never stopped."""
    numbers = [Numbers(f"s{index}", "ab"[index % 2], 7) for index in range(6)]
    dataset = StreamMixingDataset(numbers, {"a": 1, "b": 2}, readers=4, batch_size=2, seed=11)
    order = [(row["stream"], row["position"]) for row in islice(dataset, 8)]
    assert order == [("s3", 0), ("s4", 0), ("s4", 1), ("s3", 1), ("s1", 0), ("s0", 0), ("s3", 2), ("s1", 1)]
