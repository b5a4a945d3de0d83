"""Index of each measure in a vector of float64, and the metrics' values that follow from such a vector.

A rank's measurements are two runs of numbers: `sums` (added up over the ranks) and `peaks` (candidates for a maximum).
The same functions give a rank's own values and, from the reduced vectors, the cluster's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from otel_train.catalogue.metric import Instrument, Measure, Metric, Reduction
from otel_train.catalogue.names import MAX_SUFFIX, RANK_SUFFIX, cluster_name, wandb_key
from otel_train.catalogue.repeat_sketch import repeated_share
from otel_train.exceptions import ConfigurationError

ABSENT = -math.inf
"""A peak of a rank that has no candidate."""
NOTHING = -0.0
"""A user's sum to which nobody added anything: only sums of itself give minus zero, so it comes through a reduction."""
MOST_COUNTED = 2.0**53
"""A count in an interval is less, or it would not be exact; a user's own may be of anything."""
LOWEST = -sys.float_info.max
"""Stands for a candidate of minus infinity, because that itself means that there is none."""

Histogram = tuple[float, ...]
"""A histogram's value: the count of each bucket, then the sum of the observations."""
Value = float | Histogram | None
"""A metric's value; None where no rank measured it."""
Vector = Sequence[float]


def divergence(counts: Vector, targets: Vector) -> float:
    """Return the Jensen-Shannon divergence, base 2, of the shares of `counts` against those of `targets`.

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991, "Divergence measures based on the Shannon entropy"). With
    m = (p + q) / 2 and d = (p - q) / (p + q) each modality adds m / 2 times (1 + d) ln(1 + d) + (1 - d) ln(1 - d)
    = ln(1 - d^2) + 2 d artanh(d), which is not negative: so nothing cancels, and a mix that is nearly right has a
    divergence that is right to 1e-9 of itself.

    Args:
        counts: One non-negative number for each modality.
        targets: The same for the target shares; both are normalised here.

    Returns:
        A value in [0, 1]; 0 when either side is all zero, NaN when a number is not finite.
    """
    total, target_total = _total(counts), _total(targets)
    if not math.isfinite(total + target_total):
        return math.nan
    if not (total > 0 and target_total > 0):
        return 0.0
    terms = []
    for count, target in zip(counts, targets, strict=True):
        p, q = count / total, target / target_total
        if p + q > 0:
            d = (p - q) / (p + q)
            spread = math.log1p(-d * d) + 2 * d * math.atanh(d) if abs(d) < 1 else 2 * math.log(2)
            terms.append((p + q) * spread)
    return min(1.0, max(0.0, math.fsum(terms) / (4 * math.log(2))))


def _total(values: Vector) -> float:
    """Return the sum, NaN where there is none: damaged values must cost themselves, not who reads them."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond a float, or infinite ones of both signs
        return math.nan


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


Computation = Callable[[Vector, Vector, Vector], Value]


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
                (Series(metric, metric.name), partial(_peak, index, sign, absent)),
                (Series(metric, metric.name + RANK_SUFFIX), partial(_peak_rank, index)),
            ]
        starts = [self.offsets[measure.name] for measure in measures_of(metric)]
        if metric.reduction is Reduction.DIVERGENCE:
            return [(Series(metric, metric.name), partial(_divergence, starts[0], starts[1], len(self.modalities)))]
        if metric.reduction is Reduction.REPEATS:
            stop = starts[2] + measures_of(metric)[2].size
            return [(Series(metric, metric.name), partial(_repeats, starts[0], starts[1], starts[2], stop))]
        if metric.reduction is Reduction.HISTOGRAM:
            stop = starts[0] + measures_of(metric)[0].size
            return [(Series(metric, metric.name), partial(_slice, starts[0], stop))]
        if metric.reduction is Reduction.MEAN and metric.attribute:
            return self._plan_by_source(metric, starts)
        if metric.reduction is Reduction.MEAN:
            # A catalogue row is there at every step, but for a duration that nobody measured.
            empty = 0.0 if metric.measures and metric.unit != "s" else None
            return [(Series(metric, metric.name), partial(_ratio, starts[0], starts[1], empty))]
        if metric.reduction is Reduction.ALIKE:
            stop = starts[1] + measures_of(metric)[1].size
            return [(Series(metric, metric.name), partial(_alike, starts[0], starts[1], stop))]
        if metric.reduction is Reduction.NORM:
            return [(Series(metric, metric.name), partial(_root, starts[0], starts[1]))]
        if metric.reduction is Reduction.SHARE:
            stop = starts[0] + len(self.modalities)
            return [
                (Series(metric, metric.name, modality), partial(_share, starts[0] + index, starts[0], stop))
                for index, modality in enumerate(self.modalities)
            ]
        if metric.attribute:
            return [
                (Series(metric, metric.name, modality), partial(_sum, starts[0] + index))
                for index, modality in enumerate(self.modalities)
            ]
        total = _sum if metric.measures else _own_sum
        pairs: list[tuple[Series, Computation]] = [(Series(metric, metric.name), partial(total, starts[0]))]
        if metric.with_max:
            index = self.peak_offsets[metric.name]
            pairs += [
                (Series(metric, metric.name + MAX_SUFFIX), partial(_peak, index, 1.0, 0.0)),
                (Series(metric, metric.name + MAX_SUFFIX + RANK_SUFFIX), partial(_peak_rank, index)),
            ]
        return pairs

    def _plan_by_source(self, metric: Metric, starts: Sequence[int]) -> list[tuple[Series, Computation]]:
        """Return the series of a user's mean by source: the whole, then that of each modality."""
        top, bottom, width = starts[0], starts[2], 1 + len(self.modalities)
        pairs: list[tuple[Series, Computation]] = [
            (Series(metric, metric.name), partial(_ratio_of_all, (top, top + width), (bottom, bottom + width)))
        ]
        return pairs + [
            (Series(metric, metric.name, modality), partial(_ratio, top + index, bottom + index, None))
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

    @property
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


def _sum(index: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    return float(sums[index])


def _own_sum(index: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    value = float(sums[index])
    return value if value or math.copysign(1.0, value) > 0 else None


def _ratio(top: int, bottom: int, empty: float | None, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    return sums[top] / sums[bottom] if sums[bottom] else empty


def _ratio_of_all(
    top: tuple[int, int], bottom: tuple[int, int], sums: Vector, _peaks: Vector, _ranks: Vector
) -> float | None:
    count = sum(sums[bottom[0] : bottom[1]])
    return sum(sums[top[0] : top[1]]) / count if count else None


def _alike(count: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    squares = [sign * sign for sign in sums[start:stop]]
    return math.fsum(squares) / len(squares) / sums[count] if sums[count] else 0.0


def _root(top: int, bottom: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float | None:
    if not sums[bottom]:
        return None
    square = sums[top] / sums[bottom]
    return math.sqrt(square) if square >= 0 else math.nan


def _share(index: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    total = _total(sums[start:stop])
    return sums[index] / total if total else 0.0


def _divergence(counts: int, targets: int, width: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    return divergence(sums[counts : counts + width], sums[targets : targets + width])


def _repeats(keys: int, repeated: int, start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> float:
    return repeated_share(sums[keys], sums[repeated], sums[start:stop])


def _slice(start: int, stop: int, sums: Vector, _peaks: Vector, _ranks: Vector) -> Histogram:
    return tuple(sums[start:stop])


def _peak(index: int, sign: float, absent: float | None, _sums: Vector, peaks: Vector, _ranks: Vector) -> float | None:
    if peaks[index] == ABSENT:
        return absent
    return sign * (-math.inf if peaks[index] == LOWEST else peaks[index])


def _peak_rank(index: int, _sums: Vector, peaks: Vector, ranks: Vector) -> float | None:
    return None if not ranks or peaks[index] == ABSENT else float(ranks[index])
