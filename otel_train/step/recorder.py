"""Gather one rank's step: drain the sources, add the session's timing and the user's scalars, in the packed order."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from otel_train.catalogue import MAX_TEXT, MOST_BY_SOURCE, TIMING, Layout, Metric, rows
from otel_train.exceptions import ConfigurationError
from otel_train.native.records import IntervalState, Picks
from otel_train.ring import Schema
from otel_train.step.clock import Interval
from otel_train.step.late_scalars import LateScalars
from otel_train.step.late_values import LateValue
from otel_train.step.scalar_recorder import UNKNOWN_KEY, DevicePart, ScalarRecorder
from otel_train.step.source_protocols import Source, end_step_of
from otel_train.step.value_source import Dropped, drain_of, flatten
from otel_train.untraced import untraced

_BESIDE = 6
"""Values that `complete` puts between the sources' and the scalars'."""


class Measurements(NamedTuple):
    """Values that one rank measured in an interval."""

    values: Sequence[float]
    """float64 [layout.sums + 2 * layout.peaks], in a ring record's order: sums, peaks, zeros for the peaks' ranks."""
    device: DevicePart | None = None
    """The scalars' part that is still on a GPU; it belongs to the last of the sums and of the peaks."""
    late: Sequence[LateValue] = ()
    """Values under keys that came after the first step."""

    @property
    def on_device(self) -> bool:
        """Whether a part of them is still on a GPU."""
        return self.device is not None or any(value.device is not None for value in self.late)

    def await_device(self) -> None:
        """Have what is on a GPU be there for another thread than the one that made it."""
        for part in (*(self.device or ()), *(value.device for value in self.late if value.device is not None)):
            if part.device.type == "cuda":
                torch.cuda.set_device(part.device)  # or the thread's calls would go to the first GPU
                torch.cuda.synchronize(part.device)


@untraced  # the core calls it, from a compiled loop too
class Recorder:
    """One rank's measurements over all its sources.

    Args:
        sources: The sources.
        scalars: The user's scalars.
        dropped: Called for each value that is dropped, with its name and the reason.
        ranks: The ranks of the job that values are reduced over; None for all.
        modalities: The job's, where no source has any.

    Raises:
        ConfigurationError: An object is not a source, or two sources have the same metric.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        scalars: Sequence[Metric],
        dropped: Dropped = lambda _name, _reason: None,
        *,
        ranks: Collection[int] | None = None,
        modalities: Sequence[str] = (),
    ) -> None:
        self._tell = dropped
        self.interval = IntervalState()
        """State of the interval."""
        drained = [drain_of(source, self._drop) for source in sources]
        _check_one_mix([(type(source).__name__, layout) for source, (layout, _) in zip(sources, drained, strict=True)])
        given = {layout.modalities for layout, _ in drained if layout.modalities} or {tuple(modalities)}
        for name in (name for names in given for name in names):
            if not isinstance(name, str) or not 0 < len(name) <= MAX_TEXT or not name.isprintable():
                raise ConfigurationError(
                    f"modalities must have 1 to {MAX_TEXT} printable characters each, got {name!r:.80}"
                )
        if len(given) > 1:
            raise ConfigurationError(f"sources have different modalities: {sorted(given)}; give them the same")
        self.schema = Schema(
            (*(metric for layout, _ in drained for metric in layout.metrics), *TIMING, *scalars),
            given.pop(),
        )
        if self.schema.by_source > MOST_BY_SOURCE:
            raise ConfigurationError(
                f"scalars by source must have at most {MOST_BY_SOURCE} series, got {self.schema.by_source}: "
                f"{len(self.schema.modalities)} sources; declare fewer with by="
            )
        self.layout = self.schema.layout()
        # Most ranks have one source or two: a loop over all of them would cost a fifth of the step.
        self._first, *others = [drain for _, drain in drained] or [lambda _: []]
        self._others = list(enumerate(others, start=1))
        self._sources = [(type(source).__name__, layout) for source, (layout, _) in zip(sources, drained, strict=True)]
        self._ends = [end for source in sources if (end := end_step_of(source)) is not None]
        recorded = ScalarRecorder(scalars, ranks, self.schema.modalities, self.interval)
        self._scalars = recorded if scalars else None
        self.late = LateScalars(self.schema.metrics, self.interval, ranks)
        """The scalars whose keys came after the first step."""
        self.device: DevicePart | None = None
        """The scalars' part of the interval drained last that is still on a GPU; see `Measurements`."""
        self._source_values = sum(layout.sums + len(layout.given_peaks) for layout, _ in drained)
        own = Layout(tuple(scalars), self.schema.modalities)
        order = self._order([*(layout for layout, _ in drained), Layout(TIMING), own])
        self._in_order = itemgetter(*order)
        self.row = array("d", bytes(8 * len(order)))
        """float64 [layout.sums + 2 * layout.peaks]: the values of the record that the core has made last."""
        flat = array("d", bytes(8 * (self._source_values + _BESIDE + len(recorded.sums) + len(recorded.peaks))))
        totals = (recorded.means, recorded.totals, recorded.sums, recorded.peaks, recorded.empty)
        self.interval.bind(*totals, array("q", order), flat, self.row)
        self._only = sources[0] if len(sources) == 1 else None

    def _order(self, parts: Sequence[Layout]) -> list[int]:
        """Return what of the parts' values, a zero in front of the last part's, each value of a record is."""
        sums: list[int] = []
        given: list[int] = []
        start = zero = 0
        for part in parts:
            if part is parts[-1]:
                zero, start = start, start + 1
            sums += range(start, start + part.sums)
            start += part.sums
            given += range(start, start + len(part.given_peaks))
            start += len(part.given_peaks)
        if len(sums) != self.layout.sums:
            raise ConfigurationError("two sources measure the same thing for different metrics; join them into one")
        peaks = [zero] * self.layout.peaks
        for peak, source in zip(self.layout.given_peaks, given, strict=True):
            peaks[peak] = source
        for peak, index in self.layout.copied_peaks:
            peaks[peak] = sums[index]
        return [*sums, *peaks, *[zero] * self.layout.peaks]

    @property
    def picks(self) -> Picks | None:
        """Counts of the only source, where all that a step does with it is to drain them; None for other sources."""
        if type(self._only).__module__ != "otel_train.mixing.meter":
            return None  # without a look at what a rank without a mixer has not loaded
        from otel_train.mixing.meter import picks_of  # noqa: PLC0415

        return picks_of(self._only)

    def _drop(self, name: str, reason: str) -> None:
        self.interval.dropped += 1
        self._tell(name, reason)

    def add(self, scalars: Mapping[str, Any], weight: float = 1.0) -> None:
        """Add one step's scalars, each with that weight in a mean; one that can't be read costs itself only."""
        try:
            if self._scalars is None:
                dropped = dict.fromkeys(scalars, UNKNOWN_KEY)
            else:
                dropped = self._scalars.add(scalars, weight)
            if dropped:
                late = {key: scalars[key] for key, reason in dropped.items() if reason is UNKNOWN_KEY}
                dropped = {key: reason for key, reason in dropped.items() if reason is not UNKNOWN_KEY}
                dropped |= self.late.add(late, weight)
        except Exception as error:  # noqa: BLE001  # a mapping of the user's own, or none at all
            dropped = {"extra_metrics": f"must be a mapping of numbers by key, got {scalars!r:.80} ({error!r:.80})"}
        for key, reason in dropped.items():
            self._drop(key, reason)

    def log(self, scalars: Mapping[str, Any], weight: float, step: int) -> list[LateValue]:
        """Return scalars that were logged for a step beside the steps; one that can't be read costs itself only."""
        logged, dropped = self.late.logged(scalars, weight, step)
        for key, reason in dropped.items():
            self._drop(key, reason)
        return logged

    def end_step(self, step: int) -> None:
        """Tell the sources of the end of a step that is not a log step; one that raises costs the others nothing."""
        for end in self._ends:
            try:
                end(step)
            except Exception as error:  # noqa: BLE001  # a source of the user's own; free where none raises
                self._tell(type(getattr(end, "__self__", end)).__name__, f"raised {error!r:.200} in end_step")

    def measure(self, step: int, *, strict: bool = False) -> list[float]:
        """End the sources' interval with `step` and return what they measured, for `complete`.

        Args:
            step: The step that ends.
            strict: Whether a source that raises is an error; otherwise it costs its own values only.
        """
        try:
            measured = self._first(step)
        except Exception as error:
            if strict:
                raise
            measured = self._without_values(0, error)
        for index, drain in self._others:
            try:
                measured += drain(step)
            except Exception as error:
                if strict:
                    raise
                measured += self._without_values(index, error)
        return measured

    def _without_values(self, index: int, error: Exception) -> list[float]:
        """Return what a source measured that raised: nothing, each of its metrics a value that is dropped."""
        name, layout = self._sources[index]
        self.interval.dropped += len(layout.metrics)
        self._tell(name, f"raised {error!r:.200}; its values are left out where it does, the others go on")
        return flatten(layout, {})

    def complete(self, measured: list[float], interval: Interval) -> tuple[float, ...]:
        """End the scalars' interval and return all that was measured, but for the `device` part.

        Args:
            measured: What `measure` returned; it is added to.
            interval: How long the interval was.

        Returns:
            float64 [layout.sums + 2 * layout.peaks], as `Measurements.values` has them.
        """
        assert len(measured) == self._source_values, "a source of ours has another layout than its metrics"
        seconds, steps, wait = interval
        # The order of Layout(TIMING), with a one for the rank, and the zero.
        measured += (seconds, steps, wait, 1.0, self.interval.dropped, 0.0)
        self.interval.dropped = 0.0
        if self._scalars is not None:
            sums, peaks, self.device = self._scalars.drain()
            measured += sums
            measured += peaks
        values: tuple[float, ...] = self._in_order(measured)
        return values

    def own(self, values: Sequence[float]) -> Sequence[float]:
        """Return what `complete` returned as the rank's own record has it: without what is still on a GPU.

        A mean whose total is there would be zero, or that of some of its values.
        """
        if self._scalars is None or self.device is None:
            return values
        end = self.layout.sums
        start = end - len(self.device[0])
        return [*values[:start], *self._scalars.own(values[start:end]), *values[end:]]

    def drain(self, step: int, interval: Interval) -> tuple[float, ...]:
        """End the interval with `step`; see `measure` and `complete`."""
        return self.complete(self.measure(step, strict=True), interval)


def _check_one_mix(layouts: Sequence[tuple[str, Layout]]) -> None:
    meters = [name for name, layout in layouts if rows.PICKS in layout.metrics]
    if len(meters) > 1:
        raise ConfigurationError(
            f"sources: {' and '.join(meters)} each measure the mix, of which a job has one: make one meter for both, "
            "with the sources of all loaders, and count every loader's rows with it"
        )
