"""Read the numbers that come with a step, however a trainer counts: ints, NumPy's, tensors of one element."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import torch

from otel_train.torch_modes import outside_modes

LARGEST_STEP = 2**53
"""Steps are reduced as float64, which is exact up to here."""


@outside_modes
def step_number(value: Any) -> int:
    """Return a step's number by value: a tensor that is counted in place is another number later.

    Args:
        value: What the user gave. A tensor on a GPU is waited for.

    Raises:
        ValueError: It is not a whole number of at least 0; the message says so.
    """
    try:
        number = _whole(value)
    except Exception:  # noqa: BLE001  # a tensor without data, or an object of the user's own whose methods raise
        number = None
    if number is None or not 0 <= number <= LARGEST_STEP:
        raise ValueError(f"a step must be a whole number from 0 to 2**53, got {text_of(value)}")
    return number


@outside_modes
def checked_weight(value: Any) -> float:
    """Return the weight of scalars as a float.

    Args:
        value: What the user gave. A tensor on a GPU is waited for.

    Raises:
        ValueError: It is not a finite number of at least 0; the message says so.
    """
    try:
        weight = math.nan if isinstance(value, bool | str) else float(value)
    except Exception:  # noqa: BLE001  # as above
        weight = math.nan
    if not 0.0 <= weight < math.inf:
        raise ValueError(f"weight must be a finite number of at least 0, got {text_of(value)}")
    return weight


def _whole(value: Any) -> int | None:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.dtype is torch.bool:
            return None
        value = value.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, Real):  # NumPy's numbers are registered as such
        real: Any = value
        number = int(real)
        return number if number == real else None
    return operator.index(value)


def text_of(value: Any) -> str:
    """Return what a user gave as messages have it, whatever its own methods do."""
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  # as above
        return f"a {type(value).__name__}"
