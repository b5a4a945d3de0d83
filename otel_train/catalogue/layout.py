"""Index of each measure in a vector of float64, and the metrics' values that follow from such a vector.

A rank's measurements are two runs of numbers: `sums` (added up over the ranks) and `peaks` (candidates for a maximum).
The same functions give a rank's own values and, from the reduced vectors, the cluster's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from otel_train.catalogue.computations import (
    ABSENT,
    MOST_COUNTED,
    Value,
    Vector,
    alike,
    divergence_of,
    own_sum,
    peak,
    peak_rank,
    ratio,
    ratio_of_all,
    repeats,
    root,
    share,
    slice_of,
    sum_at,
)
from otel_train.catalogue.metric import Instrument, Measure, Metric, Reduction
from otel_train.catalogue.names import MAX_SUFFIX, RANK_SUFFIX, cluster_name, wandb_key
from otel_train.exceptions import ConfigurationError


class Series(NamedTuple):
    """One series that follows from a row: a metric's value, its maximum, the maximum's rank, or one modality of it."""

    metric: Metric
    name: str
    """The OTel name for one rank."""
    attribute_value: str = ""
    """The modality, where the metric has a series for each."""

    @property
    def cluster_name(self) -> str:
        """The OTel name of the cluster-wide value."""
        return cluster_name(self.name)

    @property
    def wandb_key(self) -> str | None:
        """The wandb key of the cluster-wide value; None where it is not sent there."""
        return wandb_key(self.name, self.attribute_value)

    @property
    def instrument(self) -> Instrument:
        """The instrument: siblings of a counter are gauges."""
        return self.metric.instrument if self.name == self.metric.name else Instrument.GAUGE


Computation = partial[Any]
"""A function of sums, peaks and the ranks of the peaks."""


class Layout:
    """The indices of a schema's measures in the packed vectors.

    Args:
        metrics: The rows that are measured, in the order in which their source gives them.
        modalities: The modalities, in the order of the per-modality values.

    Raises:
        ConfigurationError: A name is given twice.
    """

    def __init__(self, metrics: Sequence[Metric], modalities: Sequence[str] = ()) -> None:
        self.metrics = tuple(metrics)
        self.modalities = tuple(modalities)
        self.offsets: dict[str, int] = {}
        self.peak_offsets: dict[str, int] = {}
        self.copied_peaks: list[tuple[int, int]] = []
        """(index among the peaks, index among the sums) of peaks that a source need not give: a SUM's own value."""
        self.given_peaks: list[int] = []
        """Indices among the peaks that a source gives, in the order in which it gives them."""
        self.sums = self.peaks = 0
        seen: set[str] = set()
        for metric in self.metrics:
            if metric.name in seen:
                raise ConfigurationError(f"metric {metric.name!r} is given by two sources; rename or drop one of them")
            seen.add(metric.name)
            self._assign(metric)
        self.series: tuple[Series, ...] = ()
        self._computations: tuple[Computation, ...] = ()
        pairs = [pair for metric in self.metrics for pair in self._plan(metric)]
        if pairs:
            self.series, self._computations = zip(*pairs, strict=True)
        self.keys: tuple[str | None, ...] = tuple(series.wandb_key for series in self.series)
        """The wandb key of each of `series`."""
        self._cumulative = [series.instrument is not Instrument.GAUGE for series in self.series]

    def _assign(self, metric: Metric) -> None:
        if metric.reduction in (Reduction.MAX, Reduction.MIN):
            self.given_peaks.append(self.peaks)
            self.peak_offsets[metric.name] = self.peaks
            self.peaks += 1
            return
        for measure in measures_of(metric):
            if measure.name not in self.offsets:
                self.offsets[measure.name] = self.sums
                self.sums += measure.width(len(self.modalities))
        if metric.with_max:
            self.copied_peaks.append((self.peaks, self.offsets[measures_of(metric)[0].name]))
            self.peak_offsets[metric.name] = self.peaks
            self.peaks += 1

    def _plan(self, metric: Metric) -> list[tuple[Series, Computation]]:
        if metric.reduction in (Reduction.MAX, Reduction.MIN):
            index = self.peak_offsets[metric.name]
            absent = 0.0 if metric.measures else None  # a catalogue row is there at every step
            sign = -1.0 if metric.reduction is Reduction.MIN else 1.0
            return [
                (Series(metric, metric.name), partial(peak, index, sign, absent)),
                (Series(metric, metric.name + RANK_SUFFIX), partial(peak_rank, index)),
            ]
        starts = [self.offsets[measure.name] for measure in measures_of(metric)]
        if metric.reduction is Reduction.DIVERGENCE:
            return [(Series(metric, metric.name), partial(divergence_of, starts[0], starts[1], len(self.modalities)))]
        if metric.reduction is Reduction.REPEATS:
            stop = starts[2] + measures_of(metric)[2].size
            return [(Series(metric, metric.name), partial(repeats, starts[0], starts[1], starts[2], stop))]
        if metric.reduction is Reduction.HISTOGRAM:
            stop = starts[0] + measures_of(metric)[0].size
            return [(Series(metric, metric.name), partial(slice_of, starts[0], stop))]
        if metric.reduction is Reduction.MEAN and metric.attribute:
            return self._plan_by_source(metric, starts)
        if metric.reduction is Reduction.MEAN:
            # A catalogue row is there at every step, but for a duration that nobody measured.
            empty = 0.0 if metric.measures and metric.unit != "s" else None
            return [(Series(metric, metric.name), partial(ratio, starts[0], starts[1], empty))]
        if metric.reduction is Reduction.ALIKE:
            stop = starts[1] + measures_of(metric)[1].size
            return [(Series(metric, metric.name), partial(alike, starts[0], starts[1], stop))]
        if metric.reduction is Reduction.NORM:
            return [(Series(metric, metric.name), partial(root, starts[0], starts[1]))]
        if metric.reduction is Reduction.SHARE:
            stop = starts[0] + len(self.modalities)
            return [
                (Series(metric, metric.name, modality), partial(share, starts[0] + index, starts[0], stop))
                for index, modality in enumerate(self.modalities)
            ]
        if metric.attribute:
            return [
                (Series(metric, metric.name, modality), partial(sum_at, starts[0] + index))
                for index, modality in enumerate(self.modalities)
            ]
        total = sum_at if metric.measures else own_sum
        pairs: list[tuple[Series, Computation]] = [(Series(metric, metric.name), partial(total, starts[0]))]
        if metric.with_max:
            index = self.peak_offsets[metric.name]
            pairs += [
                (Series(metric, metric.name + MAX_SUFFIX), partial(peak, index, 1.0, 0.0)),
                (Series(metric, metric.name + MAX_SUFFIX + RANK_SUFFIX), partial(peak_rank, index)),
            ]
        return pairs

    def _plan_by_source(self, metric: Metric, starts: Sequence[int]) -> list[tuple[Series, Computation]]:
        """Return the series of a user's mean by source: the whole, then that of each modality."""
        top, bottom, width = starts[0], starts[2], 1 + len(self.modalities)
        pairs: list[tuple[Series, Computation]] = [
            (Series(metric, metric.name), partial(ratio_of_all, (top, top + width), (bottom, bottom + width)))
        ]
        return pairs + [
            (Series(metric, metric.name, modality), partial(ratio, top + index, bottom + index, None))
            for index, modality in enumerate(self.modalities, start=1)
        ]

    def split(self, values: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the sums, the peaks and the peaks' ranks of a record's values, float64 [sums + peaks + peaks]."""
        peaks = self.sums + self.peaks
        return values[: self.sums], values[self.sums : peaks], values[peaks:]

    def complete_peaks(self, sums: Vector, given: Vector) -> list[float]:
        """Return all peaks, from those that sources give and the sums that are peaks as well.

        Args:
            sums: float64 [self.sums], one rank's.
            given: float64 [len(self.given_peaks)].

        Returns:
            float64 [self.peaks].
        """
        peaks = [ABSENT] * self.peaks
        for index, value in zip(self.given_peaks, given, strict=True):
            peaks[index] = value
        for index, start in self.copied_peaks:
            peaks[index] = sums[start]
        return peaks

    @cached_property
    def counted(self) -> dict[int, float]:
        """The sums that are running totals where they are sent, with what each must be less than to be a count."""
        return {
            self.offsets[measure.name] + index: MOST_COUNTED if metric.measures else math.inf
            for metric in self.metrics
            if metric.instrument is not Instrument.GAUGE
            for measure in measures_of(metric)
            for index in range(measure.width(len(self.modalities)))
        }

    def values(self, sums: Vector, peaks: Vector, peak_ranks: Vector = ()) -> list[Value]:
        """Compute the value of each of `series`.

        Args:
            sums: float64 [self.sums], one rank's or added up over the ranks.
            peaks: float64 [self.peaks], one rank's or the maxima over the ranks.
            peak_ranks: float64 [self.peaks], the rank of each maximum; empty for one rank's own values.

        Returns:
            One value for each of `series`, None where nobody measured it.
        """
        return [compute(sums, peaks, peak_ranks) for compute in self._computations]

    def exported(self, sums: Vector, totals: Vector, peaks: Vector, peak_ranks: Vector = ()) -> list[Value]:
        """Compute the value of each of `series` as OTLP has it: of counters and histograms the total.

        Args:
            sums: As for `values`.
            totals: float64 [self.sums], of all intervals so far, this one included.
            peaks: As for `values`.
            peak_ranks: As for `values`.

        Returns:
            One value for each of `series`, None where nobody measured it.
        """
        return [
            compute(totals if cumulative else sums, peaks, peak_ranks)
            for compute, cumulative in zip(self._computations, self._cumulative, strict=True)
        ]

    def computation(self, index: int) -> Computation:
        """Return the function that computes one of `series`, with its indices."""
        return self._computations[index]

    def by_key(self, sums: Vector, peaks: Vector, peak_ranks: Vector = ()) -> dict[str, float]:
        """Return the values that have a wandb key, by that key (histograms are left out)."""
        values = self.values(sums, peaks, peak_ranks)
        return {
            key: value
            for key, value in zip(self.keys, values, strict=True)
            if isinstance(value, float) and key is not None
        }

    def indices_of(self, keys: Collection[str]) -> tuple[int, ...]:
        """Return the indices in `series` of those with these wandb keys."""
        return tuple(index for index, key in enumerate(self.keys) if key in keys)

    def some_by_key(self, indices: Sequence[int], sums: Vector, peaks: Vector) -> dict[str, float]:
        """Return one rank's values as `by_key` does, of the series at some indices only."""
        values = {self.keys[index]: self._computations[index](sums, peaks, ()) for index in indices}
        return {key: value for key, value in values.items() if isinstance(value, float) and key is not None}


def measures_of(metric: Metric) -> tuple[Measure, ...]:
    """Return the measures of `metric`; a user's scalar has its own value, and a count where it is a mean.

    A user's mean by source has both for what is of no source, and for each modality.
    """
    if metric.measures:
        return metric.measures
    total, count = f"{metric.name}:total", f"{metric.name}:count"
    if metric.attribute:
        # What is of no source of the job's, then a value for each: a run of totals, and one of counts.
        by_source = (Measure(f"{total} by source", per_modality=True), Measure(f"{count} by source", per_modality=True))
        return (Measure(total), by_source[0], Measure(count), by_source[1])
    if metric.reduction in (Reduction.MEAN, Reduction.NORM):
        return (Measure(total), Measure(count))
    return (Measure(metric.name),)
