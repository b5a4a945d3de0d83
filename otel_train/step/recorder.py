"""Gather one rank's step: drain the sources, add the session's timing and the user's scalars, in the packed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_train.catalogue import MAX_TEXT, TIMING, Layout, Metric
from otel_train.exceptions import ConfigurationError
from otel_train.ring import Schema
from otel_train.step.scalars import DevicePart, ScalarRecorder
from otel_train.step.source import Source, drain_of


@dataclass(frozen=True, slots=True)
class Measurements:
    """What one rank measured in an interval."""

    sums: list[float]
    """float64 [layout.sums]."""
    peaks: list[float]
    """float64 [layout.peaks]."""
    device: DevicePart | None = None
    """The scalars' part that is still on a GPU; it belongs to the last sums and peaks of the vectors."""


class Recorder:
    """One rank's measurements over all its sources.

    Args:
        sources: What measures.
        scalars: The user's scalars.

    Raises:
        ConfigurationError: A source is none, or two give the same metric.
    """

    def __init__(self, sources: Sequence[Source], scalars: Sequence[Metric]) -> None:
        drained = [drain_of(source) for source in sources]
        modalities = {layout.modalities for layout, _ in drained if layout.modalities}
        if any(len(name) > MAX_TEXT for names in modalities for name in names):
            raise ConfigurationError(
                f"mixing.modalities must have at most {MAX_TEXT} characters each; name them shorter"
            )
        if len(modalities) > 1:
            raise ConfigurationError(f"sources have different modalities: {sorted(modalities)}; give them the same")
        self.schema = Schema(
            (*(metric for layout, _ in drained for metric in layout.metrics), *TIMING, *scalars),
            modalities.pop() if modalities else (),
        )
        self.layout = self.schema.layout()
        self._drains = [(layout.sums, drain) for layout, drain in drained]
        self._ends = [end for source in sources if (end := getattr(source, "end_step", None)) is not None]
        self._scalars = ScalarRecorder(scalars)
        parts = [layout.sums for layout, _ in drained] + [Layout(TIMING).sums, Layout(tuple(scalars)).sums]
        if sum(parts) != self.layout.sums:
            raise ConfigurationError("two sources measure the same thing for different metrics; join them into one")
        self._seconds = self._wait = 0.0
        self._steps = 0

    def add_step(self, seconds: float, wait: float, scalars: Mapping[str, Any]) -> list[str]:
        """Add one step's duration, wait for data and scalars; return the keys that were dropped."""
        self._seconds += seconds
        self._wait += wait
        self._steps += 1
        return self._scalars.add(scalars) if scalars else []

    def end_step(self, step: int) -> None:
        """Tell the sources that a step ended which is no log step."""
        for end in self._ends:
            end(step)

    def drain(self, step: int) -> Measurements:
        """End the interval with `step`."""
        sums: list[float] = []
        given: list[float] = []
        for width, drain in self._drains:
            values = drain(step)
            sums += values[:width]
            given += values[width:]
        # The order of Layout(TIMING): seconds, steps, seconds waited, ranks.
        sums += (self._seconds, self._steps, self._wait, 1.0)
        self._seconds = self._wait = 0.0
        self._steps = 0
        scalar_sums, scalar_peaks, device = self._scalars.drain()
        sums += scalar_sums
        given += scalar_peaks
        return Measurements(sums, self.layout.complete_peaks(sums, given), device)
