"""Accumulate the user's own scalars over an interval, on the device that they live on: nothing here waits for a GPU."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from otel_train.catalogue import ABSENT, LOWEST, NOTHING, Instrument, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.native.records import IntervalState
from otel_train.step.dtensors import is_dtensor, part_of, share_of
from otel_train.step.number_reading import NO_COUNT, counts_up, problem_of, read_number, reason_of
from otel_train.step.per_row import PerRow
from otel_train.step.source_scalars import SourceScalars
from otel_train.torch_modes import in_a_mode, outside_modes, plain_tensor

DevicePart = tuple[torch.Tensor, torch.Tensor]
"""Sums and peaks that are on a GPU, float64 [sums] and float64 [peaks], in the order of the host's lists."""
UNKNOWN_KEY = "is not among the metrics"
"""Reason of a key that was not there at the first step."""
NO_SOURCES = (
    'has values by row, and is not declared by source; give otel_train.Scalar(..., by="modality") of that key to '
    "init(metrics=…)"
)
_EXACT = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8}
"""Types that a sum of float64 takes as they are."""


class _Slot(NamedTuple):
    """Slot in which a scalar is accumulated."""

    reduction: Reduction
    offset: int
    """Index among the sums or the peaks."""
    counter: bool


class ScalarRecorder:
    """The interval's sums and peaks of a fixed set of scalars.

    A metric without a value stays absent: a mean has the count 0, a sum is `NOTHING`, a peak `ABSENT`.

    Args:
        metrics: The scalars; a mean or norm takes two sums (total and count), a sum one, a maximum or minimum one peak.
        ranks: The ranks of the job that they are reduced over; None for all.
        sources: The job's, of which a mean by source has two sums each besides its own.
        interval: The recorder's that these are a part of.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        ranks: Collection[int] | None = None,
        sources: Sequence[str] = (),
        interval: IntervalState | None = None,
    ) -> None:
        self._interval = interval or IntervalState()
        self._ranks = ranks
        self._slots: dict[str, _Slot] = {}
        self._by_source = SourceScalars(sources)
        self._offsets_by_source: dict[str, int] = {}
        self.means: dict[str, int] = {}
        """Offsets of the means."""
        self.totals: dict[str, int] = {}
        """Offsets of the sums that are no counters."""
        self.empty = array("d")
        """The sums that an interval begins with."""
        self._peak_count = 0
        for metric in metrics:
            self._assign(metric)
        self._device: DevicePart | None = None
        self._device_slots: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]] = ((), ())
        """Views of its elements."""
        self._unknown: set[int] = set()
        """Offsets of the interval's sums that are not known here, since a part of them is still on a GPU."""
        self.sums = array("d", self.empty)
        """The interval's sums."""
        self.peaks = array("d", [ABSENT]) * self._peak_count
        """The interval's peaks."""
        self._no_peaks = array("d", self.peaks)

    def _assign(self, metric: Metric) -> None:
        counter = metric.instrument is Instrument.COUNTER
        if metric.attribute:
            self._offsets_by_source[metric.name] = len(self.empty)
            self.empty.extend([0.0] * self._by_source.width)
        elif metric.reduction in (Reduction.MAX, Reduction.MIN):
            self._slots[metric.name] = _Slot(metric.reduction, self._peak_count, counter)
            self._peak_count += 1
        elif metric.reduction in (Reduction.MEAN, Reduction.SUM, Reduction.NORM):
            self._slots[metric.name] = _Slot(metric.reduction, len(self.empty), counter)
            if metric.reduction is Reduction.MEAN:
                self.means[metric.name] = len(self.empty)
            if metric.reduction is Reduction.SUM and not counter:
                self.totals[metric.name] = len(self.empty)
            self.empty.extend([NOTHING] if metric.reduction is Reduction.SUM else [0.0, 0.0])
        else:
            raise ConfigurationError(
                f"metric {metric.name!r}: a scalar is a mean, sum, max, min or norm, got {metric.reduction}"
            )

    def extend(self, metric: Metric) -> None:
        """Add a mean or norm to the scalars, after the others; the interval goes on."""
        begin = len(self.empty)
        self._assign(metric)
        added = self.empty[begin:]
        self.sums.extend(added)
        if self._device is not None:
            sums, peaks = self._device
            self._device = torch.cat([sums, torch.full_like(sums[:1], NOTHING).expand(len(added))]), peaks
            self._device_slots = (self._device[0].unbind(), self._device[1].unbind())

    def add(self, values: Mapping[str, Any], weight: float = 1.0) -> dict[str, str]:
        """Add one step's values.

        Args:
            values: Numbers, or tensors of one element on any device; a tensor on a GPU is never synchronised. None
                stands for no value.
            weight: What the values count in a mean.

        Returns:
            Reasons of dropped values by key: the key is not among the metrics, or the value is not a number.
        """
        dropped: dict[str, str] = {}
        means, sums = self.means, self.sums
        for key, value in values.items():
            if type(value) is float and key in means:  # most are: this is half of the time
                mean = means[key]
                sums[mean] += value * weight
                sums[mean + 1] += weight
                continue
            try:
                reason = self._add_any(key, value, weight)
            except Exception as error:  # noqa: BLE001  # a value's own methods raise what they like: it costs itself
                reason = NO_SOURCES if isinstance(value, PerRow) and key in self._slots else reason_of(error)
            if reason:
                dropped[key] = reason
        return dropped

    def _add_any(self, key: str, value: Any, weight: float) -> str:
        """Add any value, and return why it is dropped, or an empty text."""
        slot = self._slots.get(key)
        if slot is None:
            offset = self._offsets_by_source.get(key)
            if offset is None:
                return UNKNOWN_KEY
            return self._by_source.add(value, weight, self.sums, offset, partial(self._sums_on, offset))
        if value is None:
            return ""
        if isinstance(value, torch.Tensor):
            if type(value) is torch.Tensor and not in_a_mode() and not value.is_cuda:
                try:
                    number = float(value.item())
                except Exception:  # noqa: BLE001  # it is looked at more closely
                    return self._add_tensor(slot, value, weight)
                return self._add_number(slot, number, weight)  # most tensors come here
            return self._add_tensor(slot, value, weight)
        return self._add_number(slot, read_number(value), weight)

    @outside_modes
    def _add_tensor(self, slot: _Slot, value: torch.Tensor, weight: float) -> str:
        factor = 1.0
        if is_dtensor(value):
            part = part_of(value, self._ranks)
            if part.local is None:
                return ""
            share = share_of(part, slot.reduction)
            # Such a number is as large as the whole if the others' parts are as large as this one's.
            factor = {Reduction.MEAN: 1 / share, Reduction.NORM: share**-0.5}.get(slot.reduction, 1.0)
            value, weight = part.local, weight * share
        value = plain_tensor(value)
        if value.is_cuda:
            return problem_of(value) or self._add_on_device(slot, value if factor == 1 else value * factor, weight)
        return self._add_number(slot, read_number(value) * factor, weight)

    def _add_number(self, slot: _Slot, number: float, weight: float) -> str:
        if slot.counter and not counts_up(number):
            return f"{NO_COUNT}, got {number}"
        self._add(slot, number, weight)
        return ""

    def _add(self, slot: _Slot, value: float, weight: float) -> None:
        reduction, offset, _ = slot
        if reduction is Reduction.MEAN:
            self.sums[offset] += value * weight
            self.sums[offset + 1] += weight
        elif reduction is Reduction.NORM:
            self.sums[offset] += value * value * weight
            self.sums[offset + 1] += weight
        elif reduction is Reduction.SUM:
            self.sums[offset] += value + 0.0  # minus zero is a value, but the sum of those alone would be none
        else:
            # A NaN comes in, and stays: nothing is larger than it. (max gives its first argument where neither is.)
            candidate = max(-value if reduction is Reduction.MIN else value, LOWEST)
            if candidate > self.peaks[offset] or math.isnan(candidate):
                self.peaks[offset] = candidate

    def _on_device(self, device: torch.device) -> DevicePart:
        """Return the interval's sums and peaks that are on a GPU: the given one, unless another has them already."""
        if self._device is None:
            self._device = (
                torch.full((len(self.empty),), NOTHING, dtype=torch.float64, device=device),
                torch.full((self._peak_count,), ABSENT, dtype=torch.float64, device=device),
            )
            self._device_slots = (self._device[0].unbind(), self._device[1].unbind())
            self._interval.on_device = True
        return self._device

    def _sums_on(self, offset: int, device: torch.device) -> torch.Tensor:
        """Return where a mean by source is accumulated on a GPU, float64 [2, 1 + sources]."""
        self._unknown.add(offset)
        return self._on_device(device)[0][offset : offset + self._by_source.width].view(2, -1)

    @outside_modes
    def _add_on_device(self, slot: _Slot, value: torch.Tensor, weight: float) -> str:
        reduction, offset, _ = slot
        on_device = self._on_device(value.device)
        sums, peaks = self._device_slots
        value = value.detach()
        if value.layout is not torch.strided:
            value = value.to_dense()
        if value.dtype not in _EXACT:
            value = (value.dequantize() if value.is_quantized else value).to(torch.float64)
        if value.device != on_device[0].device:
            value = value.to(on_device[0].device, non_blocking=True)
        if value.dim():
            value = value.reshape(())
        if reduction not in (Reduction.MAX, Reduction.MIN):
            self._unknown.add(offset)
        if reduction is Reduction.MEAN:
            sums[offset].add_(value, alpha=weight)  # one kernel: it adds in float64, whatever the value's type
            self.sums[offset + 1] += weight
        elif reduction is Reduction.NORM:
            sums[offset].add_(value.to(torch.float64).square(), alpha=weight)
            self.sums[offset + 1] += weight
        elif reduction is Reduction.SUM:
            sums[offset].add_(value)
            self.sums[offset] += 0.0  # the two together are a value, whatever this one is
        else:
            value = value.to(torch.float64)
            candidate = -value if reduction is Reduction.MIN else value
            torch.maximum(peaks[offset], candidate.clamp(min=LOWEST), out=peaks[offset])
        return ""

    def own(self, sums: Sequence[float]) -> list[float]:
        """Return an interval's sums without those that are not known here, which are absent instead, and forget these.

        Args:
            sums: float64 [sums], as `drain` has returned them.
        """
        own = list(sums)
        for offset in self._unknown:
            if offset in self._offsets_by_source.values():
                width = self._by_source.width
            else:
                width = 1 if math.copysign(1.0, self.empty[offset]) < 0 else 2
            own[offset : offset + width] = self.empty[offset : offset + width]
        self._unknown.clear()
        return own

    def drain(self) -> tuple[list[float], list[float], DevicePart | None]:
        """End the interval.

        Returns:
            The host's sums and peaks, and what was accumulated on a GPU beside them.
        """
        drained = (self.sums.tolist(), self.peaks.tolist(), self._device)
        self.sums[:] = self.empty
        self.peaks[:] = self._no_peaks
        self._device, self._interval.on_device = None, False
        return drained
