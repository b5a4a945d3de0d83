"""Rows and batches of forms that a plain mapping is not, through tag, collate function and count."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import Collate, SourceMeter, Tagged, TaggedDataset, pack_tag
from otel_train.mixing.batch_tags import CountedLoader

WORD = pack_tag("a", tokens=3)


class Slotted:
    """A batch whose attributes are in slots."""

    __slots__ = ("otel_train", "x")

    def __init__(self, otel_train: Any) -> None:
        self.otel_train = otel_train
        self.x = 1


class Graph:
    """A batch that keeps its attributes in a store, as torch_geometric's do."""

    def __init__(self, **values: Any) -> None:
        self._store = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_store"][name]
        except KeyError as error:
            raise AttributeError(name) from error


class Willing:
    """An object that has something under any name, as proxies do."""

    def __getattr__(self, name: str) -> Any:
        return lambda: name


class Numbers(Dataset[Any]):
    """Rows that hold the epoch which the loop has set; copies itself by a method of its own."""

    def __init__(self) -> None:
        self.epoch = 0

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"x": self.epoch}

    def __deepcopy__(self, memo: dict[int, Any]) -> Numbers:
        return Numbers()


def picks_of(batch: Any) -> float:
    """Return how many rows of a batch count, for a meter of one source."""
    meter = SourceMeter({"a": 1})
    meter.count(batch)
    return meter.drain_step_metrics(1)["stream_mixing/picks"]


@pytest.mark.parametrize(
    ("batch", "picks"),
    [
        (Slotted(torch.tensor([WORD, WORD])), 2),
        (Graph(x=1, otel_train=torch.tensor([WORD, WORD])), 2),
        (Graph(x=1), 0),
        (Willing(), 0),
        ([Graph(x=1, otel_train=WORD), Graph(x=1, otel_train=WORD)], 2),
        (MappingProxyType({"x": 1, "otel_train": torch.tensor([WORD])}), 1),
        (MappingProxyType({"left": {"otel_train": torch.tensor([WORD])}, "right": 2}), 1),
        ([{"x": 1}, *({"x": n, "otel_train": WORD} for n in range(40))], 40),
        ([None] * 40 + [Tagged(sample="x", otel_train=WORD)], 1),
        (None, 0),
    ],
)
def test_forms_are_read(batch: Any, picks: int) -> None:
    """A tag is read from slots, stores, fixed mappings, and lists that do not begin with a tagged row."""
    assert picks_of(batch) == picks


def test_fixed_mapping_loses_tag() -> None:
    """A mapping that can't be changed comes back as a dict without the tag."""
    for batch in ({"x": 1, "otel_train": WORD}, {"left": {"x": 1, "otel_train": WORD}}):
        bare = SourceMeter({"a": 1}).count(MappingProxyType(batch))
        assert "otel_train" not in repr(bare)


def test_mapping_may_refuse_number() -> None:
    """A row that takes no single number stays as it is, beside its tag."""

    class Columns(MutableMapping[str, Any]):
        """A mapping that takes tensors of its own length only, as a TensorDict."""

        def __init__(self, values: dict[str, torch.Tensor]) -> None:
            self.values_by_name = values

        def __getitem__(self, name: str) -> torch.Tensor:
            return self.values_by_name[name]

        def __setitem__(self, name: str, value: Any) -> None:
            if len(value) != len(next(iter(self.values_by_name.values()))):
                raise RuntimeError("batch dimension mismatch")
            self.values_by_name[name] = value

        def __delitem__(self, name: str) -> None:
            del self.values_by_name[name]

        def __iter__(self) -> Iterator[str]:
            return iter(self.values_by_name)

        def __len__(self) -> int:
            return len(self.values_by_name)

    row = Columns({"ids": torch.arange(3)})
    tagged = SourceMeter({"a": 1}).tag("a", tokens="ids")(row)
    assert tagged.sample is row
    assert list(row) == ["ids"]
    assert picks_of(Collate(len)([tagged, tagged])) == 2


def test_missing_row_is_none() -> None:
    """None says that there is no row: it has no tag, so a collate function can leave it out, and it does not count."""
    meter = SourceMeter({"a": 1})
    rows = TaggedDataset([{"x": 1}, None, {"x": 3}, None], meter.tag("a"))

    def collate(given: list[Any]) -> Any:
        return default_collate([row for row in given if row is not None])

    for function in (collate, Collate(collate)):
        for batch in meter.counted(DataLoader(rows, batch_size=4, collate_fn=function)):
            assert batch["x"].tolist() == [1, 3]
        assert meter.drain_step_metrics()["stream_mixing/picks"] == 2


@pytest.mark.parametrize("copies", [1, 200])
def test_untagged_rows_are_told(copies: int, caplog: pytest.LogCaptureFixture) -> None:
    """Rows without a tag among others, or alone, do not count, and are warned of where a collate function sees them."""
    meter = SourceMeter({"a": 1})
    rows = [meter.tag("a")((1, 2)), (3, 4)] * copies
    assert meter.count(Collate(len)(rows)) == 2 * copies
    assert meter.drain_step_metrics()["stream_mixing/picks"] == copies
    assert [f"{copies} rows of a batch carry no tag" in record.getMessage() for record in caplog.records] == [True]
    other = SourceMeter({"a": 1})
    other.count(Collate(len)([(3, 4)] * copies))
    assert other.drain_step_metrics()["stream_mixing/picks"] == 0
    assert len(caplog.records) == 2


def test_samples_for_all_or_none() -> None:
    """Rows of which some have a sample key can't be collated: that is said when the tags are made."""
    for first, second in ((None, "x"), ("x", None)):
        meter = SourceMeter({"a": 1, "b": 1})
        meter.tag("a", sample=first)
        with pytest.raises(ConfigurationError, match="for each source or for none"):
            meter.tag("b", sample=second)


def test_copy_stays_tagged() -> None:
    """A copy of a tagged dataset is one, whatever methods of copying the wrapped one has."""
    tagged = TaggedDataset(Numbers(), SourceMeter({"a": 1}).tag("a"))
    for copied in (copy.copy(tagged), copy.deepcopy(tagged)):
        assert "otel_train" in copied[0]


def test_setting_reaches_dataset() -> None:
    """An attribute that a loop sets is the wrapped dataset's where that has it, as are those that it reads."""
    numbers = Numbers()
    meter = SourceMeter({"a": 1})
    tagged: Any = TaggedDataset(numbers, meter.tag("a"))
    tagged.epoch = 5
    tagged.note = "mine"
    assert (numbers.epoch, tagged.epoch, tagged[0]["x"], tagged.note) == (5, 5, 5, "mine")
    assert not hasattr(numbers, "note")
    loader: Any = DataLoader(numbers, sampler=[0, 1])
    counted: Any = meter.counted(loader)
    counted.prefetch_factor = 7
    assert loader.prefetch_factor == 7


def test_no_length_is_true() -> None:
    """A dataset or loader without a length is true, as the wrapped one is; with one it goes by that."""

    class NoRows(IterableDataset[Any]):
        """A dataset without a length."""

        def __iter__(self) -> Iterator[Any]:
            return iter(())

    meter = SourceMeter({"a": 1})
    assert TaggedDataset(NoRows(), meter.tag("a"))
    assert meter.counted(iter([]))
    assert not TaggedDataset([], meter.tag("a"))
    assert not meter.counted([])


class Table(Dataset[Any]):
    """Columns, of which a list of indices or a slice takes several rows at once, as datasets' and TensorDataset do."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.x, self.n = torch.arange(12.0), torch.arange(12)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: Any) -> Any:
        x, n = self.x[index], self.n[index]
        rows = {"mapping": {"x": x, "n": n}, "tuple": (x, n), "tensor": n}
        listed = self.form not in rows and n.ndim
        return [{"x": x[at], "n": n[at]} for at in range(len(x))] if listed else rows.get(self.form, rows["mapping"])


@pytest.mark.parametrize("indices", [list, torch.tensor, np.array, lambda batch: slice(batch[0], batch[-1] + 1)])
@pytest.mark.parametrize(("form", "field"), [("mapping", "n"), ("tuple", 1), ("tensor", int), ("list", "n")])
def test_rows_read_at_once_count(form: str, field: Any, indices: Any) -> None:
    """A dataset that is asked for a whole batch has a tag for each row of it."""
    meter = SourceMeter({"a": 1}, samples=True)
    tagged = TaggedDataset(Table(form), meter.tag("a", tokens=field, sample=field))
    sampler = [indices([0, 1, 2, 3, 4]), indices([5, 6, 7])]
    loader: Any = DataLoader(tagged, batch_size=None, sampler=sampler)
    for batch, (picks, tokens) in zip(meter.counted(loader), [(5, 10), (3, 18)], strict=True):
        assert "otel_train" not in repr(batch)
        values = meter.drain_step_metrics()
        assert (values["stream_mixing/picks"], values["stream_mixing/tokens/a"]) == (picks, tokens)
    assert values["stream_mixing/repeats"] == 0
    assert meter.count(tagged[3]) is not None
    assert meter.drain_step_metrics()["stream_mixing/picks"] == 1


def test_index_of_parts_is_one_row() -> None:
    """An index that is a list may name one row: it is a batch only where there is a row for each part."""

    class Clips(Dataset[Any]):
        def __getitem__(self, index: list[int]) -> dict[str, Any]:
            return {"frames": torch.zeros(index[1], 2), "label": index[0]}

    tagged = TaggedDataset(Clips(), SourceMeter({"a": 1}).tag("a", tokens="frames"))
    assert tagged[[3, 2]]["otel_train"] == pack_tag("a", tokens=4)


def test_own_value_is_not_replaced() -> None:
    """A tag replaces a tag, of a row or a packed one, or a column's None; under its key nothing else may be lost."""
    tag = SourceMeter({"a": 1}).tag("a", tokens=lambda _: 3)
    for former in (None, pack_tag("b"), [pack_tag("b"), -1], torch.tensor([pack_tag("b")])):
        assert tag({"otel_train": former})["otel_train"] == WORD
    for own in ("mine", 1.5, True):
        with pytest.raises(ConfigurationError, match="which is no tag; rename it"):
            tag({"otel_train": own})


def test_wrapped_loader_keeps_its_count() -> None:
    """A loader that tags its batches as they are read, around which another one counts, goes on tagging."""
    meter = SourceMeter({"code": 1})
    tagged = CountedLoader([{"x": 1}, {"x": 2}], meter.tag("code"))
    assert list(meter.counted(tagged)) == [{"x": 1}, {"x": 2}]
    assert meter.drain_step_metrics(1)["stream_mixing/picks"] == 2


def test_tagged_dataset_keeps_inner_tag() -> None:
    """A dataset with a `tag` of its own, such as one that is tagged already, keeps it."""

    class Rows(list[int]):
        tag = "the user's"

    dataset = TaggedDataset(Rows([3]), SourceMeter({"code": 1}).tag("code"))
    assert dataset[0].sample == 3
    assert dataset.dataset.tag == "the user's"
