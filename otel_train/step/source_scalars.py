"""Accumulate a scalar by the source of its rows, on the device that the values are on: nothing here waits for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any

import torch

from otel_train.step.dtensors import is_dtensor
from otel_train.step.number_reading import problem_of, read_number
from otel_train.step.per_row import PerRow
from otel_train.torch_modes import outside_modes, plain_tensor

_NO_SOURCE, _PADDING = -1, -2
_BEFORE, _AFTER = 2, 1
"""Bins before those of the sources, for padding and for no source, and after, for indices beyond."""
_CPU = torch.device("cpu")

DeviceSums = Callable[[torch.device], torch.Tensor]
"""Returns where a scalar is accumulated on a GPU: float64 [2, 1 + sources]."""


class SourceScalars:
    """Accumulates means by source: 1 + sources totals, the first of what is of no source, then as many counts.

    Args:
        sources: Names of the sources, in the order of their totals.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._index = {source: index for index, source in enumerate(sources)}
        self._bins = 1 + len(sources)
        self._ones: dict[torch.device, torch.Tensor] = {}

    @property
    def width(self) -> int:
        """Sums of a scalar."""
        return 2 * self._bins

    @outside_modes
    def add(self, value: Any, weight: float, sums: MutableSequence[float], offset: int, device_sums: DeviceSums) -> str:
        """Add what a call gives under a key.

        Args:
            value: A `PerRow`; a mapping of source to mean, or to a pair (sum, count); a number of the whole; or None.
            weight: What a mean or a number counts; rows have weights of their own.
            sums: The recorder's on the host.
            offset: Index of the scalar's first one.
            device_sums: Gives those on a GPU.

        Returns:
            Why it is dropped, or an empty text.
        """
        if value is None:
            return ""
        target = _Target(sums, offset, self._bins, device_sums)
        if isinstance(value, Mapping):
            return self._add_parts(value, weight, target)
        rows = value if isinstance(value, PerRow) else PerRow(value)
        if rows.values is None:
            return ""
        return self._add_rows(rows, weight, target)

    def _add_parts(self, parts: Mapping[Any, Any], weight: float, target: _Target) -> str:
        pairs = {}
        for source, part in parts.items():
            if part is None:
                continue
            is_pair = isinstance(part, tuple | list)
            if is_pair and len(part) != 2:
                return f"must map a source to a mean or to a pair (sum, count), got {part!r:.80} for {source!r:.80}"
            top, bottom = (_number(number) for number in (part if is_pair else (part, 1.0)))
            pairs[source] = (top, bottom) if is_pair else (top * weight, weight)
            if not isinstance(bottom, torch.Tensor) and not (0 <= bottom < math.inf):
                return f"must have counts that are finite and not negative, got {bottom} for {source!r:.80}"
        for source, (top, bottom) in pairs.items():
            index = 1 + self._index.get(source, _NO_SOURCE)
            target.add(index, top)
            target.add(self._bins + index, bottom)
        return ""

    def _add_rows(self, rows: PerRow, weight: float, target: _Target) -> str:
        values = _as_tensor(rows.values)
        if not values.dim():
            return self._add_whole(values, rows, weight, target)
        problem = _unusable(values)
        if problem:
            return problem
        if rows.by is None:
            if values.numel() == 1:
                return self._add_whole(values, rows, weight, target)
            return (
                f"has {len(values)} rows whose sources are not known: give them as by=, or read batches through the "
                "session's meter, SourceMeter.counted(loader)"
            )
        sources = self._indices(rows.by, len(values))
        if values.numel() == 1 and sources.numel() != 1 and not isinstance(rows.values, list | tuple):
            return self._add_whole(values, PerRow(rows.values, rows.weights), weight, target)
        weights = None if rows.weights is None else _as_tensor(rows.weights)
        device = _device_of(values, sources, weights)
        weights = None if weights is None else _moved(weights, device)
        totals, counts = _row_sums(_moved(values, device), weights, sources.numel())
        bins = _moved((sources.reshape(-1) + _BEFORE).clamp_(0, self._bins + _BEFORE - 1), device)
        width = _BEFORE + self._bins - 1 + _AFTER
        if device.type == "cpu":
            target.add_all(*(_counted(bins, weights, width) for weights in (totals, counts)))
        else:
            counts = self._one(device).expand(len(bins)) if counts is None else counts
            target.add_on_device(scattered(bins, totals, counts, width))
        return ""

    def _one(self, device: torch.device) -> torch.Tensor:
        one = self._ones.get(device)
        if one is None:
            one = self._ones[device] = torch.ones((), dtype=torch.float64, device=device)
        return one

    def _add_whole(self, values: torch.Tensor, rows: PerRow, weight: float, target: _Target) -> str:
        """Add the one number of a batch: it is of no source unless one is named for all rows."""
        source = self._index.get(rows.by, _NO_SOURCE) if isinstance(rows.by, str) else rows.by
        index = 1 + source if type(source) is int and 0 <= source < self._bins - 1 else 0
        count = weight if rows.weights is None else read_number(rows.weights)
        target.add(index, _number(values) * count)
        target.add(self._bins + index, count)
        return ""

    def _indices(self, by: Any, rows: int) -> torch.Tensor:
        """Return the index of each row's source, int64 on the device on which it is given.

        Raises:
            ValueError: They are no whole numbers; the message completes a sentence about the value.
        """
        if isinstance(by, str):
            by = self._index.get(by, _NO_SOURCE)
        if type(by) is int:
            return torch.full((rows,), by, dtype=torch.int64, device="cpu")
        if not isinstance(by, torch.Tensor):
            listed = by.tolist() if hasattr(by, "tolist") else by
            if isinstance(listed, list | tuple) and any(isinstance(one, str) or one is None for one in listed):
                listed = [self._index.get(one, _NO_SOURCE) if isinstance(one, str) else _NO_SOURCE for one in listed]
            by = _as_tensor(listed) if listed else torch.tensor([], dtype=torch.int64, device="cpu")
        by = plain_tensor(by)
        problem = _unusable(by)
        if problem or by.is_floating_point() or by.dtype is torch.bool:
            raise ValueError(
                f"has rows by sources that are {problem or f'of {by.dtype}'}; give by= as their int64 indices or names"
            )
        indices: torch.Tensor = by.detach().to(torch.int64)
        return indices


class _Target:
    """Sums of one scalar, on the host and on a GPU."""

    def __init__(self, sums: MutableSequence[float], offset: int, bins: int, device_sums: DeviceSums) -> None:
        self._sums, self._offset, self._bins, self._device_sums = sums, offset, bins, device_sums

    def add(self, index: int, number: float | torch.Tensor) -> None:
        if isinstance(number, torch.Tensor):
            sums = self._device_sums(number.device).view(-1)
            sums[index].add_(number.to(sums.device, non_blocking=True))
        else:
            self._sums[self._offset + index] += number

    def add_all(self, totals: Sequence[float], counts: Sequence[float]) -> None:
        """Add to all of them."""
        sums, offset = self._sums, self._offset
        for index, (total, count) in enumerate(zip(totals, counts, strict=True), start=offset):
            sums[index] += total
            sums[index + self._bins] += count

    def add_on_device(self, added: torch.Tensor) -> None:
        """Add to all of them: float64 [2, bins] on a GPU."""
        sums = self._device_sums(added.device)
        sums.add_(added.to(sums.device, non_blocking=True))


def _counted(bins: torch.Tensor, weights: torch.Tensor | None, width: int) -> list[float]:
    """Return the sum of each bin but the first, of those that are of no source in front; all on the CPU."""
    _, none, *sources, beyond = torch.bincount(bins, weights, width).tolist()
    return [none + beyond, *sources]


def scattered(bins: torch.Tensor, totals: torch.Tensor, counts: torch.Tensor, width: int) -> torch.Tensor:
    """Return the totals and the counts of each bin but the first, of those that are of no source in front.

    Args:
        bins: int64 [rows], less than `width`.
        totals: float64 [rows], on the same device.
        counts: float64 [rows], on the same device.
        width: Number of bins: padding, no source, the sources, an index beyond them.

    Returns:
        float64 [2, 1 + sources] on that device, which is not waited for.
    """
    sums = torch.zeros(2, width, dtype=torch.float64, device=bins.device)
    sums[0].index_add_(0, bins, totals)
    sums[1].index_add_(0, bins, counts)
    sums[:, 1].add_(sums[:, -1])
    return sums[:, 1:-1]


def _row_sums(
    values: torch.Tensor, weights: torch.Tensor | None, rows: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the total and the count of each row, float64 [rows] on the values' device; None where each counts one.

    Args:
        values: [rows, ...], or as many as there are sources.
        weights: Of the values' shape, or [rows]; None for 1 each.
        rows: Number of the sources.

    Raises:
        ValueError: The shapes don't fit; the message completes a sentence about the value.
    """
    if rows not in (values.numel(), len(values)):
        raise ValueError(
            f"has {len(values)} rows and the sources of {rows}: give a value for each row of the batch that the "
            "session's meter counted last, or the sources as by="
        )
    values = values.to(torch.float64)
    per_row = values.numel() == rows
    if weights is None:
        if per_row:
            return values.reshape(-1), None
        return values.flatten(1).sum(1), values.new_full((rows,), values.numel() / rows)
    problem = _unusable(weights)
    if problem:
        raise ValueError(f"has weights, and their tensor {problem}")
    weights = weights.to(torch.float64)
    if weights.numel() == values.numel():
        weights = weights.reshape(values.shape)
    elif weights.numel() == len(values):
        weights = weights.reshape(-1, *[1] * (values.dim() - 1)).expand_as(values)
    else:
        raise ValueError(f"has {list(values.shape)} values and {list(weights.shape)} weights; give one for each row")
    products = (values * weights).masked_fill_(weights == 0, 0.0)
    if per_row:
        return products.reshape(-1), weights.reshape(-1)
    return products.flatten(1).sum(1), weights.flatten(1).sum(1)


def _unusable(tensor: torch.Tensor) -> str:
    """Return why the numbers of a tensor can't be used, or an empty text."""
    if tensor.is_complex():
        return "is complex; give its absolute values"
    if tensor.is_meta or getattr(tensor, "fake_mode", None) is not None:
        return "is a tensor without values (meta or fake)"
    return ""


def _number(value: Any) -> float | torch.Tensor:
    """Return a number; a tensor of one element on a GPU stays there, float64.

    Raises:
        ValueError: It is not a number; the message completes a sentence about it.
    """
    if isinstance(value, torch.Tensor) and value.is_cuda and not is_dtensor(value):
        problem = problem_of(value)
        if problem:
            raise ValueError(problem)
        return _as_tensor(value).reshape(()).to(torch.float64)
    return read_number(value)


def _device_of(*tensors: torch.Tensor | None) -> torch.device:
    """Return the first one's device that is a GPU, or the CPU: nothing may be waited for, so all come to it."""
    on_gpu = (tensor.device for tensor in tensors if tensor is not None and tensor.is_cuda)
    return next(on_gpu, _CPU)


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device. From pinned memory, or the copy would wait for what the GPU has to do before."""
    if tensor.device == device:
        return tensor
    return (tensor if tensor.is_cuda else tensor.pin_memory()).to(device, non_blocking=True)


def _as_tensor(value: Any) -> torch.Tensor:
    """Return numbers as a tensor, on the device on which they are.

    Raises:
        ValueError: They are no numbers; the message completes a sentence about them.
    """
    if isinstance(value, torch.Tensor):
        if is_dtensor(value):
            raise ValueError("is a DTensor; give the rows that this rank has: its to_local()")
        tensor: torch.Tensor = plain_tensor(value).detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        return tensor if tensor.layout is torch.strided or _unusable(tensor) else tensor.to_dense()
    if isinstance(value, list | tuple) and value and all(isinstance(row, torch.Tensor) for row in value):
        return torch.stack([_as_tensor(row) for row in value])
    try:
        if isinstance(value, list | tuple):
            floats = any(isinstance(number, float) for number in value)
            return torch.tensor(value, dtype=torch.float64 if floats else None, device="cpu")
        return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None, device="cpu")
    except Exception as error:
        raise ValueError(
            f"must be a number, or a tensor or list of one for each row, got {type(value).__name__} {value!r:.80}"
        ) from error
