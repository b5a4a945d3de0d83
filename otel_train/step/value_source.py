"""Read a source's values, whatever form it gives them in, into the packed order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from otel_train.catalogue import ABSENT, NOTHING, Instrument, Layout, Metric, Reduction, measures_of
from otel_train.exceptions import ConfigurationError
from otel_train.step.declarations import Scalar
from otel_train.step.number_reading import NO_COUNT, counts_up, read_number, reason_of
from otel_train.step.source_protocols import FlatDrain, Source, flat_drain_of, modalities_of

Drain = Callable[[int], list[float]]
"""Ends an interval with a step, and returns its sums and given peaks."""
Dropped = Callable[[str, str], None]
"""Called for a value that is dropped, with its metric's name and the reason."""


def _tell_nobody(_name: str, _reason: str) -> None:
    pass


def drain_of(source: Source, dropped: Dropped = _tell_nobody) -> tuple[Layout, Drain]:
    """Return a source's own layout, and a function that drains it into its sums and its given peaks in that order.

    Args:
        source: The source.
        dropped: Called for values that are not numbers, or that a counter can't take; they are absent then, or zero
            among the catalogue's.

    Raises:
        ConfigurationError: It is not a source, or has metrics that it can't give.
    """
    if not isinstance(source, Source):
        raise ConfigurationError(
            f"sources: {type(source).__name__} has no metrics and drain_step_metrics(); "
            "give a StreamMixingDataset, a StateLedger, a meter, or a class with these two"
        )
    metrics = tuple(_declared_by(source))
    layout = Layout(metrics, modalities_of(source))
    flat = flat_drain_of(source)
    if flat is None:
        for metric in metrics:
            if metric.attribute or metric.reduction not in _ONE_NUMBER:
                raise ConfigurationError(
                    f"metric {metric.name!r} ({metric.reduction}) can't be given as one number; "
                    f"give {type(source).__name__} a drain_measurements()"
                )
        return layout, lambda step: flatten(layout, source.drain_step_metrics(step), dropped)
    if type(source).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return layout, cast("Drain", flat)  # ours: what it counts are numbers, and it is drained at each step
    return layout, _checked(layout, flat, dropped)


def _declared_by(source: Source) -> Iterator[Metric]:
    """Yield the rows of what a source measures.

    Raises:
        ConfigurationError: It measures something else besides.
    """
    for declaration in source.metrics:
        metric = declaration.as_metric() if isinstance(declaration, Scalar) else declaration
        if not isinstance(metric, Metric):
            raise ConfigurationError(
                f"sources: {type(source).__name__}.metrics must be otel_train.Scalar or Metric, got {metric!r:.80}"
            )
        yield metric


_ONE_NUMBER = (Reduction.SUM, Reduction.MEAN, Reduction.MAX, Reduction.MIN)


def flatten(layout: Layout, values: Mapping[str, Any], dropped: Dropped = _tell_nobody) -> list[float]:
    """Return a mapping of values in the packed order.

    What is not in it, or None, or not a number, is absent: zero among the catalogue's, whose values are always there.
    """
    sums = [0.0] * layout.sums
    peaks = [ABSENT] * layout.peaks
    for metric in layout.metrics:
        measures = measures_of(metric)
        is_sum = metric.reduction is Reduction.SUM
        if is_sum and not metric.measures:
            sums[layout.offsets[metric.name]] = NOTHING
        value = values.get(metric.name, values.get(metric.wandb_key) if metric.wandb_key else None)
        if value is None:
            continue
        try:
            if metric.reduction in (Reduction.MAX, Reduction.MIN):
                number = read_number(value)
                peaks[layout.peak_offsets[metric.name]] = -number if metric.reduction is Reduction.MIN else number
                continue
            numbers = [_checked_number(metric, part) for part in ((value,) if is_sum else _pair(value))]
        except Exception as error:  # noqa: BLE001  # a value's own methods raise what they like: it costs itself
            dropped(metric.name, reason_of(error))
            continue
        for measure, number in zip(measures, numbers, strict=True):
            # From zero on: minus zero is a value, but as a sum it would be none.
            sums[layout.offsets[measure.name]] = sums[layout.offsets[measure.name]] + 0.0 + number + 0.0
    return sums + [peaks[index] for index in layout.given_peaks]


def _pair(value: Any) -> Sequence[Any]:
    """Return a mean as numerator and denominator.

    Raises:
        ValueError: It has more or fewer parts.
    """
    if not isinstance(value, tuple | list):
        return value, 1.0
    if len(value) != 2:
        raise ValueError(f"must be a number or a pair (numerator, denominator), got {value!r:.80}")
    return value


def _checked(layout: Layout, drain: FlatDrain, dropped: Dropped) -> Drain:
    """Return a drain whose values are numbers, each in its own slot, as many as it gives."""
    owners: list[Metric] = []
    for metric in layout.metrics:
        for measure in measures_of(metric):
            if metric.name not in layout.peak_offsets or metric.with_max:
                first = layout.offsets[measure.name]
                width = measure.width(len(layout.modalities))
                owners[first : first + width] = [metric] * width
    owners += [metric for metric in layout.metrics if metric.name in layout.peak_offsets and not metric.with_max]

    def run(step: int) -> list[float]:
        values = list(drain(step))  # a source may keep the one that it gives
        if len(values) != len(owners):
            raise ConfigurationError(
                f"the source measured {len(values)} values, its metrics have {len(owners)}; drain_measurements() must "
                "return all sums, then the peaks, in the order of `metrics`"
            )
        bad: set[str] = set()
        for index, (metric, value) in enumerate(zip(owners, values, strict=False)):
            try:
                values[index] = read_number(value) if index >= layout.sums else _checked_number(metric, value)
            except Exception as error:  # noqa: BLE001  # as above
                values[index] = ABSENT if index >= layout.sums else 0.0 if metric.measures else NOTHING
                if metric.name not in bad:
                    bad.add(metric.name)
                    dropped(metric.name, reason_of(error))
        for index, metric in enumerate(owners if bad else ()):
            if metric.name in bad and metric.reduction is Reduction.MEAN:  # one part without the other is not a mean
                values[index] = 0.0
        return values

    return run


def _checked_number(metric: Metric, value: Any) -> float:
    """Return a number that a sum of the metric can take.

    Raises:
        ValueError: It is not a number, or not a count where the metric counts.
    """
    number = read_number(value)
    if metric.instrument is not Instrument.GAUGE and not counts_up(number):
        raise ValueError(f"{NO_COUNT}, got {number}")
    if metric.measures and not math.isfinite(number):
        raise ValueError(f"must be finite, got {number}")
    return number
