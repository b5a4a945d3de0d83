"""Accumulate the user's own scalars over an interval, on the device that they live on: nothing here waits for a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from otel_train.catalogue import ABSENT, LOWEST, Metric, Reduction
from otel_train.exceptions import ConfigurationError

DevicePart = tuple[torch.Tensor, torch.Tensor]
"""What was accumulated on a GPU: float64 [sums] and float64 [peaks], in the order of the host's lists."""


def is_scalar(value: Any) -> bool:
    """Tell whether a value is one number: anything with `__float__`, or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex()
    if isinstance(value, int | float):
        return True
    try:
        return hasattr(value, "__float__") and isinstance(float(value), float)
    except (TypeError, ValueError):  # an array of several elements
        return False


class ScalarRecorder:
    """The interval's sums and peaks of a fixed set of scalars.

    Args:
        metrics: The scalars; a mean takes two sums (total and count), a sum one, a maximum or minimum one peak.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._places: dict[str, tuple[Reduction, int]] = {}
        self._sum_count = self._peak_count = 0
        for metric in metrics:
            if metric.reduction in (Reduction.MAX, Reduction.MIN):
                self._places[metric.name] = (metric.reduction, self._peak_count)
                self._peak_count += 1
            elif metric.reduction in (Reduction.MEAN, Reduction.SUM):
                self._places[metric.name] = (metric.reduction, self._sum_count)
                self._sum_count += 2 if metric.reduction is Reduction.MEAN else 1
            else:
                raise ConfigurationError(
                    f"metric {metric.name!r}: a scalar is a mean, sum, max or min, got {metric.reduction}"
                )
        self._means = {key: place for key, (reduction, place) in self._places.items() if reduction is Reduction.MEAN}
        self._device: DevicePart | None = None
        self._device_places: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]] = ((), ())
        """Each place of it, as a view."""
        self._reset()

    def _reset(self) -> None:
        self._sums = [0.0] * self._sum_count
        self._peaks = [ABSENT] * self._peak_count

    def add(self, values: Mapping[str, Any]) -> list[str]:
        """Add one step's values.

        Args:
            values: Numbers, or tensors of one element on any device; a tensor on a GPU is never synchronised.

        Returns:
            The keys that are not among the metrics, or hold no number, and were dropped.
        """
        dropped: list[str] = []
        means, sums = self._means, self._sums
        for key, value in values.items():
            if type(value) is float and key in means:  # most are: this is half of the time
                mean = means[key]
                sums[mean] += value
                sums[mean + 1] += 1.0
                continue
            place = self._places.get(key)
            if place is None or not is_scalar(value):
                dropped.append(key)
            elif isinstance(value, torch.Tensor) and value.is_cuda:
                self._add_on_device(*place, value)
            else:
                self._add(*place, float(value.item() if isinstance(value, torch.Tensor) else value))
        return dropped

    def add_weighted(self, values: Mapping[str, Any], weight: float) -> list[str]:
        """Add values that count as `weight` in their means; else as `add` does, which is the faster for a weight of 1.

        Args:
            values: As in `add`.
            weight: How much they count, such as the tokens that a loss is the mean of.

        Returns:
            The keys that were dropped, as `add` does.
        """
        others: dict[str, Any] = {}
        dropped: list[str] = []
        for key, value in values.items():
            if key not in self._means:
                others[key] = value
            elif not is_scalar(value):
                dropped.append(key)
            elif isinstance(value, torch.Tensor) and value.is_cuda:
                self._add_on_device(Reduction.MEAN, self._means[key], value, weight)
            else:
                self._add(Reduction.MEAN, self._means[key], float(value), weight)
        return dropped + self.add(others)

    def _add(self, reduction: Reduction, place: int, value: float, weight: float = 1.0) -> None:
        if reduction is Reduction.MEAN:
            self._sums[place] += value * weight
            self._sums[place + 1] += weight
        elif reduction is Reduction.SUM:
            self._sums[place] += value
        else:
            # A NaN comes in, and stays: nothing is larger than it. (max gives its first argument where neither is.)
            candidate = max(-value if reduction is Reduction.MIN else value, LOWEST)
            if candidate > self._peaks[place] or math.isnan(candidate):
                self._peaks[place] = candidate

    def _add_on_device(self, reduction: Reduction, place: int, value: torch.Tensor, weight: float = 1.0) -> None:
        if self._device is None:
            self._device = (
                torch.zeros(self._sum_count, dtype=torch.float64, device=value.device),
                torch.full((self._peak_count,), ABSENT, dtype=torch.float64, device=value.device),
            )
            self._device_places = (self._device[0].unbind(), self._device[1].unbind())
        sums, peaks = self._device_places
        value = value.detach()
        if value.dim():
            value = value.reshape(())
        if reduction in (Reduction.MEAN, Reduction.SUM):
            # One kernel: it adds in float64, whatever the value's type.
            sums[place].add_(value, alpha=weight) if weight != 1.0 else sums[place].add_(value)
            if reduction is Reduction.MEAN:
                self._sums[place + 1] += weight
        else:
            value = value.to(torch.float64)
            candidate = -value if reduction is Reduction.MIN else value
            torch.maximum(peaks[place], candidate.clamp(min=LOWEST), out=peaks[place])

    def drain(self) -> tuple[list[float], list[float], DevicePart | None]:
        """End the interval.

        Returns:
            The host's sums and peaks, and what was accumulated on a GPU beside them.
        """
        drained = (self._sums, self._peaks, self._device)
        self._reset()
        self._device = None
        return drained
