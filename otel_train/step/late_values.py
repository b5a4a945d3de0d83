"""Values under keys that came after the first step, on their way from a rank to the ring and through a reduction."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from otel_train.catalogue import Instrument, Metric, Reduction

JOINED = (Reduction.MEAN, Reduction.NORM, Reduction.SUM)
"""Reductions of the values that can come late, or by `log`: those that a total and a weight make."""


class LateKey(NamedTuple):
    """A key as the ranks agree on it."""

    metric: Metric

    def encode(self) -> str:
        """Return it as a text, the same on all ranks."""
        metric = self.metric
        return json.dumps([metric.name, metric.unit, str(metric.instrument), str(metric.reduction)])

    @classmethod
    def decode(cls, text: str) -> LateKey:
        """Return what `encode` made a text of."""
        name, unit, instrument, reduction = json.loads(text)
        return cls(Metric(name, Reduction(reduction), Instrument(instrument), unit=unit))


class LateValue(NamedTuple):
    """A value under such a key, of one rank or added up over the ranks."""

    metric: Metric
    total: float
    """The sum, each value times its weight; of a norm the squares'."""
    weight: float
    """The sum of the weights; not zero."""
    step: int | None = None
    """Step that it was logged for; None where it belongs to the step of the record."""
    device: torch.Tensor | None = None
    """float64 [], the part of the total that is still on a GPU."""

    @property
    def key(self) -> LateKey:
        """Key that the ranks agree on."""
        return LateKey(self.metric)

    @property
    def value(self) -> float:
        """The mean, norm or sum."""
        if self.metric.reduction is Reduction.SUM:
            return self.total
        mean = self.total / self.weight
        if self.metric.reduction is Reduction.NORM:
            return math.sqrt(mean) if mean >= 0 else math.nan
        return mean


def joined(one: LateValue, other: LateValue) -> LateValue:
    """Return two values of one key and step as one."""
    device = other.device if one.device is None else one.device
    if one.device is not None and other.device is not None:
        device = one.device + other.device.to(one.device.device)
    return one._replace(total=one.total + other.total, weight=one.weight + other.weight, device=device)


def by_key(values: Iterable[LateValue]) -> dict[str, float]:
    """Return values by wandb key."""
    return {late.metric.name: late.value for late in values}
