"""The mixing dataset under loaders that run ahead of the training loop: what counts, when, and what is saved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import MixedBatch, MixedCollate, StreamMixingDataset
from tests.support.number_streams import Numbers
from tests.support.waiting import wait_until

PICKS = rows.PICKS.wandb_key
WORKERS = pytest.mark.parametrize("workers", [0, 2])


def make(kind: type[StreamMixingDataset] = StreamMixingDataset, **changes: Any) -> StreamMixingDataset:
    """Return a dataset of two modalities."""
    streams = [Numbers(f"s{index}", "ab"[index % 2], 9 + index) for index in range(6)]
    return kind(streams, {"a": 1, "b": 2}, **{"readers": 4, "batch_size": 4, "seed": 3, **changes})


def payload(batch: Any) -> list[tuple[str, int]]:
    """Return what identifies the rows of a batch."""
    return list(zip(batch["stream"], batch["value"].tolist(), strict=True))


def expected(batches: int, **changes: Any) -> list[list[tuple[str, int]]]:
    """Return the batches that a loop over the rows themselves makes."""
    made = iter(make(**changes))
    return [[(row["stream"], row["value"]) for row in islice(made, 4)] for _ in range(batches)]


def ahead(loader: DataLoader[Any], batches: int = 1) -> Iterator[Any]:
    """Yield batches as frameworks do that hold some ahead of the loop, on the device already."""
    held: list[Any] = []
    for batch in loader:
        held.append(batch.to("cpu", non_blocking=True))
        if len(held) > batches:
            yield held.pop(0)
    yield from held


@WORKERS
@pytest.mark.parametrize("batches", [1, 3])
def test_batch_held_ahead_is_uncounted(workers: int, batches: int) -> None:
    """Picks and saved rows are those that the loop has read, and a resumed loop gets each row once."""
    seen, state = [], None
    for last in (5, 12):
        dataset = make()
        if state is not None:
            dataset.load_state_dict(state)
        for batch in ahead(DataLoader(dataset, batch_size=4, num_workers=workers), batches):
            seen.append(payload(batch))
            assert dataset.drain_step_metrics(len(seen))[PICKS] == 4
            if len(seen) == last:
                break
        state = dataset.state_dict()
        assert state["plan"]["index"] == 4 * last
    assert seen == expected(12)


@WORKERS
def test_unread_batches_come_again(workers: int) -> None:
    """A loop that is left before it reads a batch gets it when it comes back."""
    dataset = make()
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    next(iter(loader))
    assert dataset.state_dict()["plan"]["index"] == 0
    assert [payload(batch) for batch in islice(loader, 3)] == expected(3)


def _edited(made: list[MixedBatch]) -> MixedBatch:
    batch = default_collate(made)
    batch["mask"] = batch["value"] > 0
    assert isinstance(batch, MixedBatch)
    return batch


@WORKERS
@pytest.mark.parametrize(
    ("collate", "read"),
    [
        (_edited, payload),
        (list, lambda batch: [(row["stream"], row["value"]) for row in batch]),
        (tuple, lambda batch: [(row["stream"], row["value"]) for row in batch]),
        (copy.deepcopy, lambda batch: [(row["stream"], row["value"]) for row in batch]),
    ],
    ids=["edited", "list", "tuple", "copied"],
)
def test_collating_counts_nothing(workers: int, collate: Callable[..., Any], read: Callable[[Any], Any]) -> None:
    """What a function of one's own reads while it makes the batch is not the loop's reading."""
    dataset = make()
    for number, batch in enumerate(
        ahead_of(DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate))
    ):
        assert dataset.drain_step_metrics()[PICKS] == 0
        assert read(batch) == expected(number + 1)[-1]
        assert dataset.drain_step_metrics()[PICKS] == 4
        if number == 3:
            break


def ahead_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches with the next one made already."""
    batches = iter(loader)
    held = next(batches)
    for batch in batches:
        yield held
        held = batch


@WORKERS
def test_rows_without_batches_count(workers: int) -> None:
    """A loader that is told not to make batches gives rows, which count as they are read."""
    dataset = make(batch_size=1)
    for number, row in enumerate(ahead_of(DataLoader(dataset, batch_size=None, num_workers=workers)), start=1):
        assert row["length"] == row["position"] + 1
        assert dataset.drain_step_metrics()[PICKS] == 1
        if number == 5:
            break


class Doubled(IterableDataset[Any]):
    """A dataset of one's own around ours, which makes new rows."""

    def __init__(self, inner: StreamMixingDataset) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        for row in self.inner:
            yield {"double": 2 * row["value"], "pick": row["pick"], "length": row["length"]}


@WORKERS
def test_wrapped_dataset_counts_by_hand(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that lose their mapping count when they are handed over; where they never are, that is said."""
    dataset = make()
    for batch in ahead_of(DataLoader(Doubled(dataset), batch_size=4, num_workers=workers)):
        assert dataset.drain_step_metrics()[PICKS] == 0
        assert "none was counted" in caplog.text
        dataset.consume(batch)
        assert dataset.drain_step_metrics()[PICKS] == 4
        break


def test_resumed_loop_warns_too(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that counts nothing after a resume is told so as well."""
    dataset, resumed = make(), make()
    next(iter(DataLoader(dataset, batch_size=4)))["value"]
    resumed.load_state_dict(dataset.state_dict())
    next(iter(DataLoader(resumed, batch_size=4, collate_fn=len)))
    resumed.drain_step_metrics()
    assert "made 4 picks, none was counted" in caplog.text


def test_device_move_reaches_nested() -> None:
    """What `to` moves is as deep as what a framework would move, counts nothing, and never reads from the device."""

    class Nested(Numbers):
        """A stream whose rows hold tensors in other things."""

        def read(self, position: int) -> tuple[dict[str, Any], int]:
            """Return a row."""
            return {"views": [torch.zeros(2), {"deep": torch.zeros(2)}], "name": "x"}, position + 1

    dataset = StreamMixingDataset([Nested("s", "a")], {"a": 1}, readers=1, batch_size=2)
    [batch] = islice(DataLoader(dataset, batch_size=2), 1)
    moved = batch.to("meta")
    assert dataset.drain_step_metrics()[PICKS] == 0
    assert (moved["views"][0].is_meta, moved["views"][1]["deep"].is_meta, moved["name"]) == (True, True, ["x", "x"])
    assert dataset.drain_step_metrics()[PICKS] == 2


def _plain(made: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.tensor([row[name] for row in made]) for name in made[0] if name != "stream"}


@WORKERS
@pytest.mark.parametrize(("keep", "names"), [((), {"value"}), (("position", "stream"), {"value", "position"})])
def test_collate_keeps_picks_beside(workers: int, keep: tuple[str, ...], names: set[str]) -> None:
    """A collate function that knows nothing of us gets the rows' own values, and its batches count when read."""
    dataset = make()
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=MixedCollate(_plain, keep=keep))
    for number, batch in enumerate(ahead(loader), start=1):
        assert dataset.drain_step_metrics()[PICKS] == 0
        assert set(batch) == names
        assert dataset.drain_step_metrics()[PICKS] == 4
        if number == 3:
            break


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (lambda: MixedCollate(_plain, keep=["value"]), "keep must name some of stream, modality, .*got 'value'"),
        (lambda: MixedCollate(_plain)([{"value": 1}]), r"must get the dataset's rows, got a dict; .*remove_unused"),
        (lambda: MixedCollate(len)([MixedBatch({"pick": 0, "length": 1})]), "must return a mapping, got a int"),
    ],
)
def test_unfit_collate_raises(use: Callable[[], Any], complaint: str) -> None:
    """The message says what to do."""
    with pytest.raises(ConfigurationError, match=complaint):
        use()


@pytest.mark.parametrize("picks", [[3, 1, 0, 2], [0, 1, 2, 3, 0, 1]])
def test_rows_of_batch_in_any_order(picks: list[int]) -> None:
    """A collate function may sort a batch's rows or complete it by some again; each row counts once."""
    dataset = make()
    dataset.consume({"pick": picks, "length": [pick + 1 for pick in picks]})
    values = dataset.drain_step_metrics()
    assert values[PICKS] == 4
    assert sum(value for key, value in values.items() if key.startswith(rows.TOKENS.wandb_key)) == 10


@WORKERS
def test_fast_forward_of_fresh_dataset(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """A framework that reads as far as a saved job and throws it away goes on there: what it skips does not count."""
    dataset = make()
    loop = islice(ahead(DataLoader(dataset, batch_size=4, num_workers=workers)), 6, 9)
    assert [payload(batch) for batch in loop] == expected(9)[6:]
    assert dataset.drain_step_metrics()[PICKS] == 12
    assert dataset.state_dict()["plan"]["index"] == 36
    assert [record.getMessage().split(",")[1] for record in caplog.records] == [" past picks 0 to 23"]


@WORKERS
def test_later_gap_raises(workers: int) -> None:
    """A batch that is left out later, or after the dataset's own state was loaded, would be lost."""
    dataset = make()
    batches = iter(DataLoader(dataset, batch_size=4, num_workers=workers))
    next(batches)["value"]
    next(batches)
    with pytest.raises(
        ConfigurationError, match=r"picks 8 to 11, the next one is 4: the batches between were not read"
    ):
        next(batches)["value"]
    resumed = make()
    resumed.load_state_dict(dataset.state_dict())
    batches = iter(DataLoader(resumed, batch_size=4, num_workers=workers))
    next(batches)
    with pytest.raises(ConfigurationError, match=r"picks 8 to 11, the next one is 4.*ignore_data_skip"):
        next(batches)["value"]


def test_batches_out_of_order_raise(tmp_path: Path) -> None:
    """The message names `in_order`, whichever batch comes second."""
    came = tmp_path / "came"

    class LateDataset(StreamMixingDataset):
        """A dataset whose first worker's batches come after another one's."""

        def __iter__(self) -> Iterator[MixedBatch]:
            rows_of_worker = super().__iter__()
            worker = get_worker_info()
            if worker is not None and worker.id == 0:
                wait_until(came.exists, 60, "another worker's batch")
            return rows_of_worker

    batches = iter(DataLoader(make(LateDataset), batch_size=4, num_workers=2, in_order=False))
    payload(next(batches))  # of a loader that skips the first ones, for all that is known
    came.touch()
    with pytest.raises(ConfigurationError, match="in_order=True"):
        payload(next(batches))


def test_skipped_batch_must_not_come() -> None:
    """A batch that was passed over is missing in the saved state: its coming later is an error, and no repetition."""
    dataset = make()
    first, second = islice(DataLoader(dataset, batch_size=4), 2)
    assert payload(second) == expected(2)[1]
    with pytest.raises(ConfigurationError, match=r"picks 0 to 3, the next one is 8: .* comes after later ones"):
        payload(first)
