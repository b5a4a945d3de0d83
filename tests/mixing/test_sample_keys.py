"""Sample keys from the row to the meter: with their pass, through torch's DataLoader, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import otel_train
from otel_train.mixing import Collate, SourceMeter, Tagged, TaggedDataset, pack_tag, sample_code
from otel_train.mixing.batch_tags import take_tags
from otel_train.mixing.sample_keys import tagged_samples
from otel_train.mixing.tags import REPEAT_SHIFT

KEY = "stream_mixing/repeats"


def batch_of(samples: Any, repeats: Any) -> dict[str, torch.Tensor]:
    """Return a batch of rows with these sample keys, -1 for none, in these passes."""
    words = [pack_tag("a", tokens=5, repeat=repeat) if repeat >= 0 else -1 for repeat in repeats]
    return {"otel_train": torch.tensor(words), "otel_train_sample": torch.tensor(samples, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("batch", "keys", "passes"),
    [
        (batch_of([4, 5], [0, 3]), [4, 5], [0, 3]),
        (batch_of([4, -1, 5], [1, -1, 3]), [4, 5], [1, 3]),
        (Tagged(batch_of([], [0, 0])["otel_train"], "rows", -1), [], []),
        (Tagged(torch.tensor([pack_tag("a", repeat=2)] * 2), "rows", torch.tensor([-1, 6])), [6], [2]),
        # One key for each packed row of two segments, and keys that fit no number of tags.
        (batch_of([4, 5], [1, 1, 3, -1]), [4, 5], [1, 3]),
        (batch_of([4, 5], [1, 1, 3]), [4, 5], [0, 0]),
        ([batch_of([4], [1]), batch_of([5], [2]), {"otel_train": pack_tag("a")}], [4, 5], [1, 2]),
        ([{"otel_train": pack_tag("a", repeat=9), "otel_train_sample": 7}] * 2, [7, 7], [9, 9]),
    ],
)
def test_keys_meet_their_passes(batch: Any, keys: list[int], passes: list[int]) -> None:
    """Each key comes with the pass of its row; rows without a key, and padding, are left out."""
    hashes, tags = tagged_samples(take_tags(batch)[1])
    pairs = zip(hashes.tolist(), tags.tolist(), strict=True)
    assert [(key, word >> REPEAT_SHIFT & 255) for key, word in pairs if key >= 0] == list(
        zip(keys, passes, strict=True)
    )


class Shard(IterableDataset[Any]):
    """Rows with an id, of which each worker reads all, or its own part."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None and not self.shared else (0, 1)
        for index in range(number, 64, workers):
            yield {"id": index, "text": f"row {index}"}


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return a batch that has none of the keys of a row."""
    return [row["text"] for row in rows]


@pytest.mark.parametrize("collate", [None, Collate(texts_of)])
@pytest.mark.parametrize(("shared", "expected"), [(True, 0.5), (False, 0.0)])
def test_workers_with_equal_samples_are_seen(shared: bool, expected: float, collate: Any) -> None:
    """Two workers that read the whole dataset each make every row twice."""
    meter = SourceMeter({"a": 1})
    dataset = TaggedDataset(Shard(shared=shared), meter.tag("a", sample="id"))
    loader: Any = DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=collate)
    for batch in meter.counted(loader):
        assert len(batch if collate else batch["id"]) == 8
    assert meter.drain_step_metrics(1)[KEY] == expected


def test_key_is_measured_beside_others() -> None:
    """The metric has its value in a session, and those after it in a record have theirs."""
    meter = SourceMeter({"a": 1, "b": 1})
    tag = meter.tag("a", sample="x")
    with otel_train.init(sources=[meter], blocking=True) as telemetry:
        values: list[Any] = []
        for step, row in enumerate(({"x": 1}, {"x": 2}, {"x": 1}, {"x": 2}), start=1):
            meter.count(tag(row))
            values.append(telemetry.step(step))
    assert [row[KEY] for row in values] == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert [row["stream_mixing/staleness_max"] for row in values] == [0, 1, 2, 3]
    assert [row["stream_mixing/alike_ranks"] for row in values] == [1, 1, 1, 1]


def test_sources_and_passes_tell_keys_apart() -> None:
    """The same index in two sources, or in two passes, is no repeat."""
    meter = SourceMeter({"a": 1, "b": 1})
    rows = [{"i": index, "epoch": epoch} for epoch in (0, 1) for index in (0, 1)]
    for source in ("a", "b"):
        meter.count([meter.tag(source, sample="i", repeat="epoch")(row) for row in rows])
    assert meter.drain_step_metrics(1)[KEY] == 0
    assert sample_code(("a", 0)) != sample_code(("b", 0))


@pytest.mark.parametrize(
    ("make", "batch", "warning"),
    [
        (SourceMeter, batch_of([1], [0]), "not compared: make the meter with SourceMeter(..., samples=True)"),
        (partial(SourceMeter, samples=True), batch_of([-1], [0]), "a batch carries no sample keys"),
        (SourceMeter, batch_of([-1], [0]), ""),
        (partial(SourceMeter, samples=True), batch_of([1], [0]), ""),
    ],
)
def test_missing_keys_warn_once(make: Any, batch: Any, warning: str, caplog: pytest.LogCaptureFixture) -> None:
    """Keys that nobody compares, and keys that are to be compared and are not there, are each told once."""
    meter = make({"a": 1})
    for _ in range(3):
        meter.count(batch)
    assert [warning in message for message in caplog.messages] == [True] * bool(warning)


def test_late_key_changes_no_metrics() -> None:
    """A job's metrics are settled when telemetry reads them: a tag with a key that is made later adds none."""
    meter = SourceMeter({"a": 1})
    metrics = meter.metrics
    meter.tag("a", sample="x")
    assert meter.metrics == metrics
    assert KEY not in meter.drain_step_metrics(1)


def test_window_goes_on_at_resume() -> None:
    """Rows that a resumed loader reads once more are repeats; the state of a meter that compared none is none."""
    meter, resumed = (SourceMeter({"a": 1}, samples=True) for _ in range(2))
    batch = batch_of([sample_code("x"), sample_code("y")], [0, 0])
    meter.count(batch)
    resumed.load_state_dict(meter.state_dict())
    resumed.count(batch)
    assert resumed.drain_step_metrics(1)[KEY] == 0.5
    state = SourceMeter({"a": 1}).state_dict()
    resumed.load_state_dict({name: state[name] for name in state.keys() - {"samples"}})


@pytest.mark.modes
def test_compares_in_any_mode() -> None:
    """Keys are compared inside any mode of torch, all of them or some."""
    meter = SourceMeter({"a": 1}, samples=True)
    samples = torch.tensor([sample_code(number) for number in range(600)])
    meter.count({"otel_train": torch.tensor([pack_tag("a")] * 600), "otel_train_sample": samples})
    meter.count({"otel_train": torch.tensor([pack_tag("a")] * 600), "otel_train_sample": samples})
    assert meter.drain_step_metrics(1)[KEY] == 0.5
