"""What telemetry asks of a source, and how a source's values come into the packed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from otel_train.catalogue import ABSENT, Layout, Metric, Reduction, measures_of
from otel_train.exceptions import ConfigurationError


@runtime_checkable
class Source(Protocol):
    """Anything that measures something each step: our dataset, ledger and meters, or a class of the user's own.

    It may also have `modalities` (for metrics with a series for each), `end_step(step)` (called at each step that is
    no log step), `needs_clock` (whether `end_step` matters to training itself, telemetry or not),
    `drain_measurements(step)` (the same values flat, in the packed order, for speed), `facts` (how it is set up: texts
    and numbers by name, for people) and `watch(enter)` (it gets what to call with a `Phase` before and behind what
    waits for other ranks).
    """

    @property
    def metrics(self) -> Sequence[Metric]:
        """What it measures."""

    def drain_step_metrics(self, step: int | None = None) -> Mapping[str, Any]:
        """End the interval with `step` and return its values by metric name (or wandb key).

        A SUM, MAX or MIN is a number; a MEAN a number, or a pair (numerator, denominator).
        """


Drain = Callable[[int], list[float]]


def drain_of(source: Source) -> tuple[Layout, Drain]:
    """Return a source's own layout, and a function that drains it into its sums and its given peaks in that order.

    Raises:
        ConfigurationError: It is no source.
    """
    if not isinstance(source, Source):
        raise ConfigurationError(
            f"sources: {type(source).__name__} has no metrics and drain_step_metrics(); "
            "give a StreamMixingDataset, a StateLedger, a meter, or a class with these two"
        )
    layout = Layout(tuple(source.metrics), tuple(getattr(source, "modalities", ())))
    fast: Drain | None = getattr(source, "drain_measurements", None)
    if fast is not None:
        return layout, fast
    return layout, lambda step: flatten(layout, source.drain_step_metrics(step))


def flatten(layout: Layout, values: Mapping[str, Any]) -> list[float]:
    """Return a mapping of values in the packed order; what is not in it is zero, or absent where it is a peak."""
    sums = [0.0] * layout.sums
    peaks = [ABSENT] * layout.peaks
    for metric in layout.metrics:
        value = values.get(metric.name, values.get(metric.wandb_key) if metric.wandb_key else None)
        if value is None:
            continue
        if metric.reduction in (Reduction.MAX, Reduction.MIN):
            peaks[layout.peak_offsets[metric.name]] = -value if metric.reduction is Reduction.MIN else value
        elif metric.reduction is Reduction.MEAN:
            top, bottom = value if isinstance(value, tuple) else (value, 1.0)
            for measure, part in zip(measures_of(metric), (top, bottom), strict=True):
                sums[layout.offsets[measure.name]] += part
        elif metric.reduction is Reduction.SUM and not metric.attribute:
            sums[layout.offsets[measures_of(metric)[0].name]] += value
        else:
            raise ConfigurationError(
                f"metric {metric.name!r} ({metric.reduction}) can't be given as one number; use drain_measurements()"
            )
    return sums + [peaks[place] for place in layout.given_peaks]
