"""The tag of a row, and how it is taken out of a batch."""

from __future__ import annotations

import inspect
import pickle
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import Collate, SourceMeter, Tagged, TaggedDataset, pack_tag, sample_code
from otel_train.mixing.batch_tags import tag_tensor, take_tags

WORD = pack_tag("a", tokens=3)


class Pair(NamedTuple):
    """A row that is a named tuple."""

    x: Any
    y: Any


@dataclass
class Row:
    """A row that is an object."""

    ids: list[int]
    epoch: int = 1


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"ids": [1, 2, 3]}, "ids"),
        ({"ids": torch.arange(3)}, "ids"),
        ({"ids": torch.tensor(3)}, "ids"),
        ({"ids": torch.ones(1, 3)}, "ids"),
        ({"ids": np.int64(3)}, "ids"),
        ({"ids": np.zeros((1, 3))}, "ids"),
        (UserDict(ids=3), "ids"),
        (MappingProxyType({"ids": 3}), "ids"),
        (("x", 3), 1),
        (Pair("x", 3), "y"),
        (Row([1, 2, 3]), "ids"),
        ("x y z", lambda text: len(text.split())),
    ],
)
def test_tokens_come_from_row(row: Any, tokens: Any) -> None:
    """Tokens are a number, a list or a tensor of any shape, under a key, an index or an attribute, or computed."""
    tagged = SourceMeter({"a": 1}).tag("a", tokens=tokens)(row)
    bare, tags = take_tags(tagged)
    assert tags.words == [WORD]
    assert bare == row if not hasattr(row, "keys") else list(bare) == list(row)


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"x": 1}, {"tokens": "ids"}, "no 'ids'.*it has x"),
        ({"x": "text"}, {"tokens": "x"}, "whole number"),
        ({"x": -1}, {"tokens": "x"}, "0 to 134217727"),
        ({"x": 1 << 27}, {"tokens": "x"}, "0 to 134217727"),
        ({"x": -1}, {"repeat": "x"}, "number of the pass"),
        ({"x": 1.5}, {"repeat": "x"}, "whole number"),
        (("x",), {"sample": 1}, "no 1"),
    ],
)
def test_wrong_row_says_why(row: Any, field: dict[str, Any], message: str) -> None:
    """A row that lacks what the tag needs is an error that names the source, the field and the row's keys."""
    with pytest.raises(ConfigurationError, match=message):
        SourceMeter({"a": 1}).tag("a", **field)(row)


@pytest.mark.parametrize(
    "batch",
    [
        {"x": 1, "otel_train": torch.tensor([WORD])},
        UserDict(x=1, otel_train=[WORD]),
        OrderedDict(x=1, otel_train=np.array([WORD])),
        ({"x": 1, "otel_train": WORD}, "labels"),
        [torch.zeros(2), {"y": 0, "otel_train": torch.tensor(WORD)}],
        Pair({"otel_train": WORD}, 2),
        {"left": {"x": 1, "otel_train": torch.tensor([[WORD, -1]])}, "right": 2},
        SimpleNamespace(x=1, otel_train=torch.tensor([WORD])),
        [{"x": n, "otel_train": WORD if n == 0 else -1} for n in range(99)],
        [({"x": n, "otel_train": WORD if n == 0 else -1}, n) for n in range(99)],
        Tagged(torch.tensor([WORD], dtype=torch.int64), torch.zeros(2)),
        {"x": 1, "otel_train": [torch.tensor([WORD]), torch.tensor([-1, -1])]},
    ],
)
def test_tag_is_found_in_batch(batch: Any) -> None:
    """A tag counts wherever a collate function leaves it, padding does not, and the batch given is not changed."""
    before = repr(batch)
    meter = SourceMeter({"a": 1})
    bare = meter.count(batch)
    values = meter.drain_step_metrics(1)
    assert (values["stream_mixing/picks"], values["stream_mixing/tokens/a"]) == (1, 3)
    assert repr(batch) == before
    if not isinstance(batch, SimpleNamespace):
        assert "otel_train" not in repr(bare)
        assert isinstance(batch, Tagged) or type(bare) is type(batch)


@pytest.mark.parametrize("words", [torch.tensor([1.0]), ["a"], [1.5], object(), torch.tensor([True])])
def test_converted_tags_are_refused(words: Any) -> None:
    """A tag that is not int64 any more can't be read: the error says so and nothing is counted."""
    with pytest.raises(ConfigurationError, match="tags of a batch must be"):
        tag_tensor(words)


def test_packed_rows_count_by_segment() -> None:
    """A packed row carries a tag for each segment, padded: each segment is a pick."""
    meter = SourceMeter({"a": 1, "b": 1})
    words = [[pack_tag("a", 5), pack_tag("b", 6), -1], [pack_tag("b", 7), -1, -1]]
    meter.count({"otel_train": torch.tensor(words)})
    values = meter.drain_step_metrics(1)
    assert (values["stream_mixing/picks"], values["stream_mixing/tokens/b"]) == (3, 13)


def test_pinned_and_fetched_in_lists() -> None:
    """A dataset's `__getitems__` is used, and tagged too."""

    class Batched:
        def __getitem__(self, index: int) -> dict[str, int]:
            raise AssertionError(index)

        def __getitems__(self, indices: list[int]) -> list[dict[str, int]]:
            return [{"x": index} for index in indices]

        def __len__(self) -> int:
            return 4

    meter = SourceMeter({"a": 1})
    loader = DataLoader(TaggedDataset(Batched(), meter.tag("a")), batch_size=4)
    assert [batch["x"].tolist() for batch in meter.counted(loader)] == [[0, 1, 2, 3]]
    assert meter.drain_step_metrics(1)["stream_mixing/picks"] == 4


class Bare(IterableDataset[Any]):
    """Rows without a state."""

    def __iter__(self) -> Iterator[Any]:
        return iter([{"x": 1}])


class Counting(IterableDataset[Any]):
    """Rows with a state; it is its own iterator."""

    def __init__(self) -> None:
        self.next = 0

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> dict[str, int]:
        self.next += 1
        return {"x": self.next - 1}

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


def test_tagged_dataset_has_state() -> None:
    """The state of a dataset and that of its iterator go through the tags, also for who looks at the class alone."""
    tagged = TaggedDataset(Counting(), SourceMeter({"a": 1}).tag("a"))
    rows = iter(pickle.loads(pickle.dumps(tagged)))
    for part in (tagged, rows):
        assert inspect.getattr_static(part, "state_dict")
        part.load_state_dict({"next": 5})
        assert part.state_dict() == {"next": 5}
    assert [next(iter(tagged))["x"], next(rows)["x"]] == [5, 5]


@pytest.mark.parametrize("rows", [[{"x": 1}], Bare()])
def test_tagged_dataset_invents_no_state(rows: Any) -> None:
    """A dataset without a state has none when it is tagged: a loader would call it."""
    tagged = TaggedDataset(rows, SourceMeter({"a": 1}).tag("a"))
    assert not hasattr(tagged, "state_dict")
    assert not hasattr(iter(tagged), "state_dict")


def test_tag_and_dataset_pickle() -> None:
    """Worker processes that are spawned get the tag and the dataset by pickling."""
    meter = SourceMeter({"a": 1})
    tagged = TaggedDataset([{"x": 1}], meter.tag("a", sample="x"))
    copied = pickle.loads(pickle.dumps(tagged))
    assert copied[0] == tagged[0] == {"x": 1, **dict.fromkeys(["otel_train"], pack_tag("a")), **copied[0]}


def test_sample_code_tells_keys_apart() -> None:
    """Equal keys have one hash, whatever holds them; others have another, and none is padding."""
    keys = [7, 8, "7", ("a", 7), None, 2**70, -1]
    codes = [sample_code(key) for key in keys]
    assert len(set(codes)) == len(keys)
    assert min(codes) >= 0
    assert sample_code(np.int64(7)) == sample_code(torch.tensor(7)) == sample_code(7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SourceMeter(["a"]), "must map each source"),  # type: ignore[arg-type]
        (lambda: SourceMeter({}), "at least one"),
        (lambda: SourceMeter({"a": -1}), "not negative"),
        (lambda: SourceMeter({"a": 1}).tag("b"), "must be one of a"),
        (lambda: SourceMeter({"a": 1}).tag("a", tokens=1.5), "tokens must be"),  # type: ignore[arg-type]
        (lambda: SourceMeter({"a": 1}).end("b"), "must be one of a"),
        (lambda: SourceMeter({"source 17294": 1, "source 29702": 1}), "rename one"),
    ],
)
def test_wrong_arguments_say_why(call: Any, message: str) -> None:
    """What is given wrong is a clear error."""
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_first_field_counts_rows() -> None:
    """A batch of rows that are no mappings begins with its tags, so that its first field tells its length."""
    rows = [SourceMeter({"a": 1}).tag("a")(("x", "y"))] * 3
    assert [len(batch[0]) for batch in (default_collate(rows), Collate(dict)(rows))] == [3, 3]
