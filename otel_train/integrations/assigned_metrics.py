"""Metrics that a trainer keeps by name from step to step: which of them are new in a step, and the numbers in them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch


class AssignedMetrics(dict[str, Any]):
    """Values by name that stay until they are replaced; notes which are assigned, also where it is the same value.

    Examples:
        >>> from otel_train.integrations.assigned_metrics import AssignedMetrics
        >>> metrics = AssignedMetrics({"epoch_loss": 2.0, "lr": 0.1})
        >>> metrics["lr"] = 0.1
        >>> metrics.take(), metrics.take(), metrics
        ({'lr': 0.1}, {}, {'epoch_loss': 2.0, 'lr': 0.1})
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        super().__init__(metrics)
        self._names: set[str] = set()

    def __setitem__(self, name: str, value: Any) -> None:
        self._names.add(name)
        super().__setitem__(name, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign each of some metrics."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, metrics: Any) -> Any:  # type: ignore[misc]  # narrower than dict's `|`
        self.update(metrics)
        return self

    def take(self) -> dict[str, Any]:
        """Return those that were assigned since the last call."""
        names, self._names = self._names, set()
        return {name: self[name] for name in names if name in self}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy notes nothing


def numbers(key: str, value: Any, *, lists: bool = False) -> dict[str, Any]:
    """Return the numbers in a value by key: its own, and `KEY/NAME` for each of what a mapping holds.

    Examples:
        >>> from otel_train.integrations.assigned_metrics import numbers
        >>> numbers("val", {"loss": 2.0, "by": {"code": 1.5}, "recall": [0.5, 1.0], "note": "text"}, lists=True)
        {'val/loss': 2.0, 'val/by/code': 1.5, 'val/recall/0': 0.5, 'val/recall/1': 1.0}

    Args:
        key: Of the value.
        value: A number or a tensor on any device, which is not read, or a mapping; what else it may be is left out.
        lists: Whether the elements of lists, tuples and tensors [elements] count too, as `KEY/INDEX`.
    """
    if isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.dim() == 0):
        return {key: value}
    if isinstance(value, Mapping):
        items = value.items()
    elif lists and (isinstance(value, (list, tuple)) or (isinstance(value, torch.Tensor) and value.dim() == 1)):
        items = dict(enumerate(value)).items()
    else:
        return {}
    return {
        name: number for key_, inner in items for name, number in numbers(f"{key}/{key_}", inner, lists=lists).items()
    }
