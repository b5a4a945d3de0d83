"""Keep the scalars that come before the first step, when their keys are not agreed on yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from otel_train.step.per_row import PerRow
from otel_train.torch_modes import outside_modes

MOST_EARLY = 10_000
"""Calls that are kept: a job that never makes a step must not grow."""


class EarlyCall(NamedTuple):
    """A call that came before the first step."""

    scalars: dict[str, Any]
    weight: float
    step: int | None


class EarlyScalars:
    """Scalars by key and their weight, one entry for each call, in order."""

    def __init__(self) -> None:
        self._calls: list[EarlyCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, scalars: Mapping[str, Any], weight: float, step: int | None = None) -> bool:
        """Keep the scalars of a call, by value, and tell whether there was room for them.

        Args:
            scalars: The scalars.
            weight: Their weight in means.
            step: The step that they were logged for, beside the steps; None for those of the first step.
        """
        if len(self._calls) >= MOST_EARLY:
            return False
        self._calls.append(EarlyCall({key: _by_value(value) for key, value in scalars.items()}, weight, step))
        return True

    def newest(self) -> dict[str, Any]:
        """Return the newest value of each of the first step's keys."""
        return {key: value for call in self._calls if call.step is None for key, value in call.scalars.items()}

    def take(self) -> list[EarlyCall]:
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
