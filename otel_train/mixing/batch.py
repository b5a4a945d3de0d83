"""A batch that was made in a DataLoader's worker process and notifies its dataset when the training loop reads it."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.utils.data import get_worker_info

from otel_train.untraced import untraced

READERS: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The datasets of this process by their token; each has `consume_once(batch)`."""


class MixedBatch(dict[str, Any]):
    """The values of a row, or of a batch that torch's default collate made of rows, by name.

    Worker processes run ahead of the training loop, so a pick must not be counted when it is made. A batch from a
    worker therefore carries its picks' numbers (`"pick"`), and the first time that the training loop reads anything
    from it, they are counted, for the step that is being made. Collating and pinning memory do not count as reading.
    Of a batch and its copies the first that is read counts.

    Examples:
        >>> from otel_train.mixing import MixedBatch
        >>> MixedBatch({"value": 1})["value"]
        1

    Args:
        values: The row's values.
        token: Token of the dataset to notify; empty when the row's pick is counted already.
    """

    def __init__(self, values: dict[str, Any] | None = None, token: str = "") -> None:
        super().__init__(values or {})
        self._token = token

    @untraced
    def _read(self) -> None:
        if self._token and get_worker_info() is None:
            token, self._token = self._token, ""
            dataset = READERS.get(token)
            if dataset is not None:
                dataset.consume_once(self)

    def pin_memory(self) -> MixedBatch:
        """Return the batch with its tensors in pinned memory, uncounted still (torch's pinning thread calls this)."""
        pinned = {
            name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in dict.items(self)
        }
        return MixedBatch(pinned, self._token)

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

    def __reduce__(self) -> tuple[Callable[..., MixedBatch], tuple[dict[str, Any], str]]:
        # Pickling happens in the worker's queue thread and must not count as reading.
        return MixedBatch, (dict(dict.items(self)), self._token)
