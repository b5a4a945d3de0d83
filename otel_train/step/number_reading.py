"""Read one number from whatever a user or a source gives as one, or the reason why it is not a number."""

from __future__ import annotations

import math
from typing import Any

import torch

from otel_train.step.dtensors import is_dtensor, part_of
from otel_train.torch_modes import outside_modes, plain_tensor

_NO_NUMBERS = str | bytes | bytearray | memoryview | complex
"""Types that `float` would parse, or cut to their real part."""
_NO_NUMBER = "must be a number or a tensor of one element"


def problem_of(tensor: torch.Tensor) -> str:
    """Return why the number of a tensor can't be read, or an empty text."""
    if tensor.numel() != 1:
        return f"is a tensor of {tensor.numel()} elements; give one number, such as its mean"
    if tensor.is_complex():
        return "is complex; give its absolute value"
    if tensor.is_meta or getattr(tensor, "fake_mode", None) is not None:
        return "is a tensor without values (meta or fake)"
    return ""


@outside_modes
def read_tensor(tensor: torch.Tensor) -> float:
    """Return the number of a tensor of one element; a tensor on a GPU is waited for.

    Raises:
        ValueError: It does not hold one; the message completes a sentence about it.
    """
    if is_dtensor(tensor):
        part = part_of(tensor)
        if part.local is None or part.kind:
            raise ValueError("is a DTensor that other ranks have parts of; give its full_tensor()")
        tensor = part.local
    tensor = plain_tensor(tensor)
    problem = problem_of(tensor)
    if problem:
        raise ValueError(problem)
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return float(tensor.item())


def read_number(value: Any) -> float:
    """Return the number that a value stands for: anything with `__float__`, or an array or tensor of one element.

    Raises:
        ValueError: It is not a number; the message completes a sentence about it.
        Exception: Whatever the value's own methods raise.
    """
    if isinstance(value, torch.Tensor):
        return read_tensor(value)
    if not isinstance(value, int | float) and _size(value) == 1 and callable(getattr(value, "item", None)):
        value = value.item()  # an array's, or a scalar's of NumPy
    if isinstance(value, _NO_NUMBERS):
        raise ValueError(f"{_NO_NUMBER}, got {_short(value)}")  # noqa: TRY004  # like the others here
    try:
        return float(value)
    except OverflowError:
        raise ValueError("is an integer beyond what a float holds") from None
    except (TypeError, ValueError):
        raise ValueError(f"{_NO_NUMBER}, got {_short(value)}") from None


@outside_modes
def unreadable(value: Any) -> str:
    """Return why a value is not a number, or an empty text; a tensor on a GPU is not waited for."""
    try:
        if isinstance(value, torch.Tensor) and is_dtensor(value):
            part_of(value)
        elif isinstance(value, torch.Tensor) and value.is_cuda:
            return problem_of(value)
        else:
            read_number(value)
    except Exception as error:  # noqa: BLE001  # a value's own methods raise what they like
        return reason_of(error)
    return ""


def reason_of(error: Exception) -> str:
    """Return what to say of a value whose reading raised an error."""
    return str(error) if type(error) is ValueError else f"can't be read ({error!r:.200})"


def _size(value: Any) -> int | None:
    size = getattr(value, "size", None)
    return size if isinstance(size, int) else None


def _short(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.80}"


NO_COUNT = "is a counter and takes finite numbers that are not negative"
"""Reason for which a counter does not take a number."""


def counts_up(number: float) -> bool:
    """Tell whether a counter can take a number: it only grows, and an infinite one would never grow again."""
    return 0 <= number < math.inf
