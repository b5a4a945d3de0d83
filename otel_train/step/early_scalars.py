"""Keep the scalars that come before the first step, when their keys are not agreed on yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from otel_train.step.per_row import PerRow
from otel_train.torch_modes import outside_modes

MOST_EARLY = 10_000
"""Calls that are kept: a job that never makes a step must not grow."""


class EarlyScalars:
    """Scalars by key and their weight, one entry for each call, in order."""

    def __init__(self) -> None:
        self._calls: list[tuple[dict[str, Any], float]] = []

    def add(self, scalars: Mapping[str, Any], weight: float) -> bool:
        """Keep the scalars of a call, by value, and tell whether there was room for them."""
        if len(self._calls) >= MOST_EARLY:
            return False
        self._calls.append(({key: _by_value(value) for key, value in scalars.items()}, weight))
        return True

    def newest(self) -> dict[str, Any]:
        """Return the newest value of each key."""
        return {key: value for scalars, _ in self._calls for key, value in scalars.items()}

    def take(self) -> list[tuple[dict[str, Any], float]]:
        """Return the calls and forget them."""
        calls, self._calls = self._calls, []
        return calls


@outside_modes
def _by_value(value: Any) -> Any:
    if isinstance(value, PerRow):
        return value.by_value()
    try:
        return value.detach().clone() if isinstance(value, torch.Tensor) else value
    except Exception:  # noqa: BLE001  # a tensor that can't be read: it is dropped when it would be, with its reason
        return value
