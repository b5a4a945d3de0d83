"""A batch that a DataLoader has made and that notifies its dataset when the training loop reads it."""

from __future__ import annotations

import sys
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.utils.data import get_worker_info

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.callers import check_not_dispatched, makes_batch
from otel_train.untraced import untraced

_collating: Any = torch.utils.data._utils.collate  # noqa: SLF001  # torch documents it as the way to add a type
READERS: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The datasets of this process by their token; each has `consume_once(batch)`."""
ROW_KEYS = ("stream", "modality", "slot", "position", "pick", "length")
"""Names that the dataset adds to a row's own values."""


def _moved(value: Any, move: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a value with each tensor in it moved."""
    if isinstance(value, torch.Tensor):
        return move(value)
    if isinstance(value, dict):
        return {name: _moved(part, move) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(part, move) for part in value)
    return value


class MixedBatch(dict[str, Any]):
    """The values of a row, or of a batch that torch's default collate made of rows, by name.

    Workers run ahead of the training loop, and so do frameworks that hold a batch, so a pick must not be counted when
    it is made. A batch therefore carries its picks' numbers (`"pick"`), and the first time that the training loop
    reads anything from it, they are counted, for the step that is being made. Collating, pinning memory and moving to
    a device do not count as reading. Of a batch and its copies the first that is read counts.

    Examples:
        >>> from otel_train.mixing import MixedBatch
        >>> MixedBatch({"value": 1})["value"]
        1

    Args:
        values: The row's values.
        token: Token of the dataset to notify; empty when the row's pick is counted already.
        picks: "pick" and "length" of the rows, where the values do not have them.
    """

    def __init__(
        self, values: dict[str, Any] | None = None, token: str = "", picks: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(values or {})
        self._token = token
        self._picks = picks

    @property
    def token(self) -> str:
        """Token of the dataset to notify; empty when that is done."""
        return self._token

    @untraced
    def _read(self) -> None:
        if self._token and get_worker_info() is None and not makes_batch():
            if "accelerate.data_loader" in sys.modules:
                check_not_dispatched()
            token, self._token = self._token, ""
            dataset = READERS.get(token)
            if dataset is not None:
                dataset.consume_once(self if self._picks is None else self._picks)

    def _with(self, move: Callable[[torch.Tensor], torch.Tensor]) -> MixedBatch:
        # The picks stay on the CPU beside it: reading them from a GPU would wait for it, each batch.
        picks = self._picks or {name: dict.get(self, name) for name in ("pick", "length")}
        moved = {name: _moved(value, move) for name, value in dict.items(self)}
        return MixedBatch(moved, self._token, picks if self._token else None)

    def pin_memory(self) -> MixedBatch:
        """Return the batch with its tensors in pinned memory, uncounted still (torch's pinning calls this)."""
        return self._with(torch.Tensor.pin_memory)

    def to(self, *arguments: Any, **options: Any) -> MixedBatch:
        """Return the batch with its tensors moved as `torch.Tensor.to` does, uncounted still.

        Lightning, transformers and Accelerate call this for the batch that they hold ahead of the loop.
        """
        return self._with(lambda tensor: tensor.to(*arguments, **options))

    def __getitem__(self, name: str) -> Any:
        self._read()
        return dict.__getitem__(self, name)

    def __iter__(self) -> Iterator[str]:
        self._read()
        return dict.__iter__(self)

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """Return the names, and count the batch as read."""
        self._read()
        return dict.keys(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the values, and count the batch as read."""
        self._read()
        return dict.values(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return names and values, and count the batch as read."""
        self._read()
        return dict.items(self)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value or the default, and count the batch as read."""
        self._read()
        return dict.get(self, name, default)

    def pop(self, *arguments: Any) -> Any:
        """Remove a name and return its value or the default, and count the batch as read."""
        self._read()
        return dict.pop(self, *arguments)

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last name and value, and count the batch as read."""
        self._read()
        return dict.popitem(self)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a value, setting it where it is missing, and count the batch as read."""
        self._read()
        return dict.setdefault(self, name, default)

    def __reduce__(self) -> tuple[Callable[..., MixedBatch], tuple[Any, ...]]:
        # Pickling happens in the worker's queue thread and must not count as reading.
        return MixedBatch, (dict(dict.items(self)), self._token, self._picks)


def _collate_rows(rows: Sequence[MixedBatch], *, collate_fn_map: Any = None) -> MixedBatch:
    """Make a batch of rows as torch's default collate does, without asking for each value whether it is read."""
    values = {
        name: _collating.collate([dict.__getitem__(row, name) for row in rows], collate_fn_map=collate_fn_map)
        for name in dict.keys(rows[0])
    }
    return MixedBatch(values, rows[0].token)


_collating.default_collate_fn_map[MixedBatch] = _collate_rows


class MixedCollate:
    """A `collate_fn` that lets another one make the values of a batch, and keeps the batch's picks beside them.

    For collate functions that keep no `MixedBatch`, such as transformers' data collators: what they make is counted
    when the training loop reads it, and the model gets nothing that it does not know.

    Examples:
        >>> from otel_train.mixing import MixedBatch, MixedCollate
        >>> collate = MixedCollate(lambda rows: {"x": [row["x"] for row in rows]})
        >>> collate([MixedBatch({"x": 1, "pick": 0, "length": 4}), MixedBatch({"x": 2, "pick": 1, "length": 4})])
        {'x': [1, 2]}

    Args:
        collate: Gets a list of dicts, a row's own values each, and returns a mapping.
        keep: Names of "stream", "modality", "slot", "position", "pick" and "length" that it gets as well.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], *, keep: Sequence[str] = ()) -> None:
        for name in keep:
            if name not in ROW_KEYS:
                raise ConfigurationError(f"keep must name some of {', '.join(ROW_KEYS)}, got {name!r}")
        self._collate = collate
        self._dropped = frozenset(ROW_KEYS) - set(keep)

    def __call__(self, rows: Sequence[Any]) -> MixedBatch:
        """Return the batch.

        Args:
            rows: The dataset's.

        Raises:
            ConfigurationError: The rows lack their picks, or `collate` returns no mapping.
        """
        for row in rows:
            if not isinstance(row, MixedBatch):
                raise ConfigurationError(
                    f"MixedCollate must get the dataset's rows, got a {type(row).__name__}; let nothing take values "
                    "out of them before (transformers: TrainingArguments(remove_unused_columns=False))"
                )
        values = self._collate(
            [{name: value for name, value in dict.items(row) if name not in self._dropped} for row in rows]
        )
        if not isinstance(values, Mapping):
            raise ConfigurationError(
                f"collate must return a mapping, got a {type(values).__name__}; or hand the rows' 'pick' and "
                "'length' to StreamMixingDataset.consume() in the training loop"
            )
        picks = {name: [dict.__getitem__(row, name) for row in rows] for name in ("pick", "length")}
        return MixedBatch(dict(values), rows[0].token if rows else "", picks)
