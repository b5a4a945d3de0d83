"""Take the tags out of a batch, whatever a collate function made of the rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from otel_train.arguments import MAX_SHOWN
from otel_train.exceptions import ConfigurationError
from otel_train.mixing.tags import PADDING, SAMPLE_KEY, TAG_KEY, UNTAGGED, Tagged
from otel_train.torch_modes import outside_modes, plain_tensor

_DEPTH = 4
"""Levels of mappings, tuples and lists below a batch that are looked into."""
_FIELDS = 32
"""A longer sequence is one of rows: where none has a tag itself and the first has none inside, no row has."""


class Tags(NamedTuple):
    """The tags of a batch as they were in it, in order: tensors, arrays, lists or numbers."""

    words: list[Any]
    samples: list[Any]


def take_tags(batch: Any) -> tuple[Any, Tags]:
    """Return a batch without its tags, and the tags: none where it has none, and is then the same object."""
    tags = Tags([], [])
    return _without(batch, tags, _DEPTH), tags


def _without(part: Any, tags: Tags, depth: int) -> Any:
    if isinstance(part, Tagged):
        tags.words.append(part.otel_train)
        tags.samples.append(part.otel_train_sample)
        return part.sample
    if isinstance(part, Mapping):
        return _mapping_without(part, tags, depth)
    if isinstance(part, list | tuple):
        return _sequence_without(part, tags, depth)
    if not isinstance(part, torch.Tensor | str | bytes | int | float) and part is not None:
        _note_attribute(part, tags)
    return part


def _note_attribute(part: Any, tags: Tags) -> None:
    """Take the tags that an object of the user's carries as attributes; they stay there."""
    # By getattr: with slots, and in a graph of torch_geometric's, they are in no `__dict__`.
    word = getattr(part, TAG_KEY, None)
    if isinstance(word, int | list | tuple) or hasattr(word, "dtype"):  # not what an object makes up for any name
        tags.words.append(word)
        tags.samples.append(getattr(part, SAMPLE_KEY, PADDING))


def _mapping_without(part: Mapping[Any, Any], tags: Tags, depth: int) -> Any:
    if TAG_KEY in part:
        tags.words.append(part[TAG_KEY])
        tags.samples.append(part.get(SAMPLE_KEY, PADDING))
        if type(part) is dict or not isinstance(part, MutableMapping):
            return {key: value for key, value in part.items() if key not in (TAG_KEY, SAMPLE_KEY)}
        bare = copy.copy(part)
        for key in (TAG_KEY, SAMPLE_KEY):
            if key in bare:
                del bare[key]
        return bare
    if not depth:
        return part
    changed = {}
    for key, value in part.items():
        if isinstance(value, Mapping | list | tuple):
            bare = _without(value, tags, depth - 1)
            if bare is not value:
                changed[key] = bare
    if not changed:
        return part
    if type(part) is dict or not isinstance(part, MutableMapping):
        return {**part, **changed}
    copied = copy.copy(part)
    copied.update(changed)
    return copied


def _is_tagged(row: Any) -> bool:
    return (type(row) is dict and TAG_KEY in row) or isinstance(row, Tagged)


def _sequence_without(part: Any, tags: Tags, depth: int) -> Any:
    if not depth or not part:
        return part
    alike = len(part) > _FIELDS and not any(map(_is_tagged, part))
    if alike and _without(part[0], Tags([], []), depth - 1) is part[0]:
        return part
    bare = [_without(value, tags, depth - 1) for value in part]
    if all(new is old for new, old in zip(bare, part, strict=True)):
        return part
    if isinstance(part, tuple):
        return type(part)(*bare) if hasattr(part, "_fields") else tuple(bare)
    return bare


@outside_modes
def tag_tensor(value: Any) -> torch.Tensor:
    """Return tags as a batch has them, without padding or order lost: int64 [n] on the CPU.

    Raises:
        ConfigurationError: They are not whole numbers: something has converted them.
    """
    if isinstance(value, torch.Tensor):
        flat = plain_tensor(value).detach().reshape(-1)
        if flat.dtype != torch.int64:
            raise ConfigurationError(
                f"the tags of a batch must be int64, got {str(flat.dtype).removeprefix('torch.')}: something has "
                f"converted the batch; count it before, or leave {TAG_KEY!r} and {SAMPLE_KEY!r} out of the conversion"
            )
        return flat.cpu()
    if isinstance(value, int):
        return torch.tensor([value], dtype=torch.int64, device="cpu")
    if isinstance(value, list | tuple):
        if all(type(number) is int for number in value):
            return torch.tensor(value, dtype=torch.int64, device="cpu")
        return tag_tensor(value[0]) if len(value) == 1 else torch.cat([tag_tensor(part) for part in value])
    try:
        return tag_tensor(torch.as_tensor(value, dtype=None, device="cpu"))  # an array of NumPy's or another's
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the tags of a batch must be a tensor, an array or a list of int64, got {type(value).__name__} "
            f"{value!r:.{MAX_SHOWN}}; keep {TAG_KEY!r} of the rows as it is"
        ) from error


def untagged_message(batch: Any) -> str:
    """Return what to say of a batch without tags."""
    if isinstance(batch, Mapping):
        shown = f"a mapping with {', '.join(map(str, batch))}"[:200]
        reason = (
            f"whatever collates or filters the rows must keep {TAG_KEY!r} (transformers' Trainer drops each key that "
            "forward() does not name, unless remove_unused_columns=False)"
        )
    else:
        shown = f"a {type(batch).__name__}"
        reason = "wrap the collate function: DataLoader(..., collate_fn=otel_train.Collate(your_function))"
    return (
        f"a batch carries no tag, so its rows are not counted: tag the rows with SourceMeter.tag, and {reason}; "
        f"the batch is {shown}"
    )


def unknown_message(rows: int, sources: Sequence[str]) -> str:
    """Return what to say of rows of a batch whose source a meter does not have."""
    return (
        f"{rows} rows of a batch carry no tag, or that of a source which this meter does not have (it has "
        f"{', '.join(sources)}): they are not counted; make the meter with every source of the job, and tag the rows "
        "of each"
    )


class Collate:
    """A collate function for rows that are tagged and not mappings, or that keeps none of the keys it does not expect.

    It gives your function the rows as they were before they were tagged, and puts the tags beside what that returns;
    `SourceMeter.count` takes them off again. It can be pickled if your function can.

    Examples:
        >>> import torch, otel_train
        >>> meter = otel_train.SourceMeter({"code": 1, "prose": 3})
        >>> tag = meter.tag("code", tokens=len)
        >>> collate = otel_train.Collate(lambda rows: torch.tensor([sum(row) for row in rows]))
        >>> meter.count(collate([tag([1, 2]), tag([3])]))
        tensor([3, 3])

    Args:
        collate: Makes a batch of a list of rows; by default torch's `default_collate`.
    """

    def __init__(self, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Any]) -> Tagged:
        """Return the batch of these rows, and their tags, int64 [n]."""
        bare, words, samples = [], [], []
        for row in rows:
            untagged, tags = take_tags(row)
            bare.append(untagged)
            if tags.words or row is None:  # None is no row: a collate function that gets it leaves it out
                words += tags.words
                samples += tags.samples
            else:
                words.append(UNTAGGED)
                samples.append(PADDING)
        return Tagged(tag_tensor(words), self.collate(bare), tag_tensor(samples))


class TaggedDataset(Dataset[Any]):
    """A torch dataset whose rows carry a tag: map-style or iterable, as the one that it wraps.

    Whatever else the wrapped dataset has (`state_dict`, `set_epoch`, …) it has too.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.SourceMeter({"code": 1})
        >>> rows = otel_train.TaggedDataset([{"x": 1}, {"x": 2}], meter.tag("code"))
        >>> len(rows), meter.count(rows[1])
        (2, {'x': 2})

    Args:
        dataset: A dataset of rows: it has `__getitem__`, or `__iter__` where it is an `IterableDataset`.
        tag: What `SourceMeter.tag` returned, or a function that gives a row to the tag of its source.
    """

    def __new__(cls, dataset: Any, tag: Callable[[Any], Any]) -> Any:  # noqa: ARG004  # as __init__ has it
        """Return a map-style dataset or an iterable one: torch's DataLoader distinguishes them by class."""
        if cls is TaggedDataset:
            iterable = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
            cls = _CLASSES[iterable, _has_state(dataset)]  # noqa: PLW0642  # a copy is made by its own class
        return object.__new__(cls)

    def __init__(self, dataset: Any, tag: Callable[[Any], Any]) -> None:
        self.tag = tag  # before the dataset, which may have a `tag` of its own
        self.dataset = dataset

    def __getnewargs__(self) -> tuple[Any, Any]:
        return self.dataset, self.tag

    def __len__(self) -> int:
        return len(self.dataset)

    def __bool__(self) -> bool:
        return bool(self.dataset)  # one without a length is true, and `len` would raise

    def __getitem__(self, index: Any) -> Any:
        rows = self.dataset[index]
        if isinstance(index, slice):
            index = range(*index.indices(len(self.dataset)))
        # Several at once, as with a sampler of batches and batch_size=None.
        several = isinstance(index, list | range) or getattr(index, "ndim", 0) > 0
        return _with_tags(rows, self.tag) if several and _is_batch(rows, len(index)) else self.tag(rows)

    def __getattr__(self, name: str) -> Any:
        value = _attribute_of(self, "dataset", name)
        if name == "__getitems__":
            return lambda indices: [self.tag(row) for row in value(indices)]
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        _set_attribute_of(self, "dataset", name, value)


def _is_batch(rows: Any, count: int) -> bool:
    """Tell a batch of so many rows from one row, for which an index of several parts may stand, too."""
    columns = rows.values() if isinstance(rows, Mapping) else rows if isinstance(rows, tuple) else [rows]
    try:
        return {len(column) for column in columns} == {count}
    except TypeError:
        return False


def _with_tags(rows: Any, tag: Callable[[Any], Any]) -> Any:
    """Return several rows with a tag for each: a list of rows, or columns in a mapping, a tuple or one tensor."""
    if isinstance(rows, list):
        return [tag(row) for row in rows]
    if isinstance(rows, Mapping):
        names = list(rows)
        tagged = [tag(dict(zip(names, values, strict=True))) for values in zip(*rows.values(), strict=True)]
    else:
        tagged = [tag(row) for row in (zip(*rows, strict=True) if isinstance(rows, tuple) else rows)]
    tags = [take_tags(row)[1] for row in tagged]
    words = tag_tensor([word for row in tags for word in row.words])
    samples = tag_tensor([sample for row in tags for sample in row.samples])
    if not isinstance(rows, Mapping):
        return Tagged(sample=rows, otel_train=words, otel_train_sample=samples)
    keys = {SAMPLE_KEY: samples} if any(SAMPLE_KEY in row for row in tagged) else {}
    return {**rows, TAG_KEY: words, **keys}


class _TaggedIterable(TaggedDataset, IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        rows = iter(self.dataset)
        return _StatefulRows(rows, self.tag) if _has_state(rows) else map(self.tag, rows)


class _StatefulDataset(TaggedDataset):
    # Methods of the class: what checks for them as for a protocol does not ask __getattr__ (Python 3.12).
    def state_dict(self) -> Any:
        return self.dataset.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.dataset.load_state_dict(state)


class _StatefulIterable(_StatefulDataset, _TaggedIterable):
    pass


_CLASSES = {
    (False, False): TaggedDataset,
    (False, True): _StatefulDataset,
    (True, False): _TaggedIterable,
    (True, True): _StatefulIterable,
}
"""Classes by whether the wrapped dataset is iterable, and whether it has a state."""


class _StatefulRows:
    """The tagged rows of an iterator that has a state."""

    def __init__(self, rows: Any, tag: Callable[[Any], Any]) -> None:
        self._rows = rows
        self._tag = tag

    def __iter__(self) -> _StatefulRows:
        return self

    def __next__(self) -> Any:
        return self._tag(next(self._rows))

    def state_dict(self) -> Any:
        return self._rows.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._rows.load_state_dict(state)


def _has_state(rows: Any) -> bool:
    return hasattr(rows, "state_dict") and hasattr(rows, "load_state_dict")


class CountedLoader:
    """A loader whose batches are counted when they are read; it has whatever else the loader has."""

    def __init__(self, loader: Iterable[Any], count: Callable[[Any], Any]) -> None:
        self._count = count  # before the loader, which may be one of these
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return map(self._count, self._loader)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self._loader)

    def __getattr__(self, name: str) -> Any:
        return _attribute_of(self, "_loader", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_attribute_of(self, "_loader", name, value)


def _attribute_of(wrapper: Any, inner: str, name: str) -> Any:
    """Return an attribute that a wrapper has from what it wraps.

    Special ones are a class's own: with the wrapped one's `__deepcopy__` a copy would be untagged.
    """
    special = name.startswith("__") and name != "__getitems__"
    if name == inner or special or inner not in vars(wrapper):  # in a copy that is being made it is not there yet
        raise AttributeError(f"{type(wrapper).__name__!r} object has no attribute {name!r}")
    return getattr(vars(wrapper)[inner], name)


def _set_attribute_of(wrapper: Any, inner: str, name: str, value: Any) -> None:
    """Set an attribute where it is: an epoch that a loop sets must reach the dataset."""
    wrapped = vars(wrapper).get(inner)
    own = name in vars(wrapper) or hasattr(type(wrapper), name)
    if own or wrapped is None or name == inner or not hasattr(wrapped, name):
        object.__setattr__(wrapper, name, value)
    else:
        setattr(wrapped, name, value)
