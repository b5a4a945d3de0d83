"""Record the steps of a session whose schema is agreed on: a row each log step, in the ring and over the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_train.event_sink import EventSink
from otel_train.log_once import OnceLogger
from otel_train.native import core
from otel_train.ring import Kind, RingWriter
from otel_train.step.clock import Interval, StepClock
from otel_train.step.cluster_values import ClusterValues
from otel_train.step.core_steps import CoreSteps
from otel_train.step.late_values import LateKey, LateValue, by_key, joined
from otel_train.step.options import SessionOptions
from otel_train.step.packing import Reduced
from otel_train.step.recorder import Measurements, Recorder
from otel_train.step.reduction import Reducer
from otel_train.untraced import untraced

# Looked up once: an attribute of an enum costs as much as writing a record's values.
_RANK, _BOTH = Kind.RANK, Kind.BOTH


Row = tuple[int, int, list[float], Interval]
"""A log step that is about to be recorded, all but its scalars: step, time stamp, the sources' values, interval."""


@untraced  # the core calls it, from a compiled loop too
class Recording:
    """Recording of a rank's steps, from the first step on.

    Where the core is built it makes the steps that are like most: native/step.c has `step` and what it calls.

    Args:
        recorder: This rank's measurements.
        reducer: Brings them together over the ranks.
        ring: This rank's; None where it could not be made.
        options: The session's.
        clock: The session's.
        steps: The session's.
        settled: Called once, when the core can make the steps from then on.
        warnings: The session's.
        events: Takes a "drain" event at each log step.
    """

    def __init__(
        self,
        recorder: Recorder,
        reducer: Reducer,
        ring: RingWriter | None,
        *,
        options: SessionOptions,
        clock: StepClock,
        steps: CoreSteps,
        settled: Callable[[], None],
        warnings: OnceLogger,
        events: EventSink | None,
    ) -> None:
        self.recorder, self.reducer, self.ring = recorder, reducer, ring
        self.cluster = ClusterValues(reducer, ring)
        """The cluster's values, and whatever is written into the ring."""
        self.repeats = not options.blocking
        """Whether a step was given again since the last log step, or the first one may be."""
        self.steps = steps
        steps.stride, steps.every, steps.last_step = 1, options.log_every, -1
        steps.alone = reducer.group.handle is None
        reducer.log_stride = steps.log_stride
        self._held: Row | None = None
        """A row that waits for further calls of its step."""
        self._beside: dict[LateKey, LateValue] = {}
        """Values of a step whose row has gone out, which wait for further calls of it: an evaluation's batches."""
        self._beside_at = 0, 0
        """That step, and the time stamp of the first of these calls."""
        self._options = options
        self._settled = settled
        # The core holds no row, waits for nobody, and calls no receiver of events.
        self._for_core = core is not None and ring is not None and not options.blocking and events is None
        self._wait = options.reduction_timeout if options.blocking else None
        self._clock = clock
        self._warnings = warnings
        self._events = events

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self, step: int, scalars: Mapping[str, Any] | None, now: float) -> dict[str, float] | None:
        """End a step that is larger than the last one; see `Telemetry.step`."""
        try:
            if self._held is not None or self._beside:
                self.release()
            self.steps.logs = self.steps.every == 1 or self._ends_interval(step)
            self.steps.last_step = step
            if scalars is not None:
                self.recorder.add(scalars)
        except Exception as error:  # noqa: BLE001  # the failure contract: nothing of ours raises into the training loop
            self.leave_out(step, now, error)
            return None
        return self.finish(step, now)

    def finish(self, step: int, now: float) -> dict[str, float] | None:
        """End a step that has its scalars: measure it, record it, begin its reduction."""
        try:
            time_ns = self._clock.stamp(now)
            if not self.steps.logs:
                self.recorder.end_step(step)
                if self.ring is not None:
                    self.ring.mark(step, time_ns)
                return None
            row = self._measure(step, time_ns, now)
            if self.repeats:
                # The steps before were given more than once: this one may be too.
                self.repeats, self._held = False, row
                if self.ring is not None:
                    self.ring.mark(step, time_ns)
                return None
            self._emit(row)
            if self._wait is not None:
                newest = self.cluster.newest
                if newest is not None and newest.step == step:
                    return self.values(newest)
            elif self._for_core and not self.steps.plain:
                self.steps.plain = True
                self._settled()
        except Exception as error:  # noqa: BLE001  # as in step
            self.leave_out(step, now, error)
        return None

    def leave_out(self, step: int, now: float, error: Exception) -> None:
        """Go on after a step that could not be recorded."""
        self._leave_out(step, self._clock.stamp(now), error, logs=self.steps.logs)

    def _ends_interval(self, step: int) -> bool:
        """Tell whether a multiple of `log_every` has come since the step before; ranks must agree on that.

        So it goes by the step, and by how far steps are apart where they are told with a stride, but not by the last
        step: a rank that was away for some would log another one than its peers.
        """
        steps = self.steps
        if steps.last_step >= 0:
            apart = step - steps.last_step
            steps.stride = min(steps.stride, apart) if steps.strides else apart
            steps.strides = True
        return step // steps.every != (step - steps.stride) // steps.every

    def repeat(self) -> bool:
        """Note that the last step is given once more, and tell whether it can still take what comes with that."""
        self.repeats = not self._options.blocking
        self.steps.plain = False
        return self._held is not None or not self.steps.logs

    def add(self, scalars: Mapping[str, Any], weight: float = 1.0) -> None:
        """Add scalars beside a step: to a row that is held, else to the step that is being made."""
        self.steps.open = True
        self.recorder.add(scalars, weight)

    def log(self, step: int, scalars: Mapping[str, Any], weight: float) -> None:
        """Record scalars that belong to no step boundary; see `Telemetry.log`."""
        self.release()
        values = self.recorder.log(scalars, weight, step)
        if values:
            self.cluster.log(step, self._clock.stamp_beside(time.perf_counter()), values)

    def log_late(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Log the scalars of a step whose row has gone out beside it; what can't be goes into the next step.

        Holding each row for them instead would have the other ranks wait for this one while it evaluates alone.
        """
        can_log = self.recorder.late.can_log
        for value in self.recorder.log({key: value for key, value in scalars.items() if can_log(key)}, 1.0, step):
            if not self._beside:
                self._beside_at = step, self._clock.stamp_beside(time.perf_counter())
            before = self._beside.get(value.key)
            self._beside[value.key] = value if before is None else joined(before, value)
        if rest := {key: value for key, value in scalars.items() if not can_log(key)}:
            self.add(rest)

    def release(self) -> None:
        """Emit what is held, a row or what came beside one: nothing is added to its step any more."""
        beside, self._beside = [*self._beside.values()], {}
        row, self._held = self._held, None
        if beside:
            try:
                self.cluster.log(*self._beside_at, beside)
            except Exception as error:  # noqa: BLE001  # as in step
                self._warnings.warn("log", "telemetry: log() has dropped its values: %r", error)
        if row is not None:
            try:
                self._emit(row)
            except Exception as error:  # noqa: BLE001  # as in step
                self._leave_out(row[0], row[1], error, logs=True)

    def close(self, time_ns: int, ended: float, timeout: float) -> None:
        """Record what came since the last record, over the ranks too where all of them close at the same step.

        Args:
            time_ns: The time stamp.
            ended: When the last step ended, by the steady clock.
            timeout: Seconds that the reductions are waited for at most.
        """
        rest = self.measure_rest(time_ns, ended)
        self.cluster.close(self.steps.last_step, time_ns, rest, timeout)

    def measure_rest(self, time_ns: int, ended: float) -> Measurements | None:
        """Record what came since the last record on this rank, and return what of it is to be reduced.

        Args:
            time_ns: The time stamp.
            ended: When the last step ended, by the steady clock.
        """
        self.release()
        try:
            return self._rest(time_ns, ended)
        except Exception as error:  # noqa: BLE001  # as in step
            self._warnings.warn("step", "telemetry: step %d is not recorded: %r", self.steps.last_step, error)
            return None

    def _rest(self, time_ns: int, ended: float) -> Measurements | None:
        recorded = self._clock.last_step
        if recorded is not None and recorded >= self.steps.last_step:
            if not self.steps.open:
                return None
            self.steps.last_step = recorded + 1  # what comes after a step belongs to the one that is being made
        return self._emit(self._measure(self.steps.last_step, time_ns, ended), reduces=False)

    # -- rows ----------------------------------------------------------------------------------------------------

    def _measure(self, step: int, time_ns: int, now: float) -> Row:
        """End the sources' interval; the scalars' goes on until the row is emitted."""
        measured = self.recorder.measure(step)
        if self._events is not None:
            try:
                self._events({"event": "drain", "step": step})
            except Exception as error:  # noqa: BLE001  # the user's own
                self._warnings.warn("events", "telemetry: the events' receiver raised %r", error)
        return step, time_ns, measured, self._clock.end_interval(now, step)

    def _emit(self, row: Row, *, reduces: bool = True) -> Measurements | None:
        """Record a row and begin its reduction over the ranks.

        Args:
            row: The row.
            reduces: Whether its reduction begins here.

        Returns:
            What is to be reduced; None where the one rank's values are the cluster's.
        """
        step, time_ns, measured, interval = row
        recorder = self.recorder
        values = recorder.complete(measured, interval)
        self.steps.open = False
        late = recorder.late.drain() if recorder.interval.late else ()
        measurements = Measurements(values, recorder.device, late)
        if self.steps.alone and not measurements.on_device:
            # What the one rank measured is the cluster's, and it has all the maxima.
            self.cluster.record(step, time_ns, _BOTH, values, late)
            self.cluster.newest = Reduced(step, time_ns, values, late)
            return None
        self.cluster.record(step, time_ns, _RANK, recorder.own(values), late)
        if reduces:
            self.cluster.reduce(step, time_ns, measurements, self._wait)
        return measurements

    def emit_values(self, step: int, time_ns: int, values: Sequence[float]) -> None:
        """Record a row of the core's and begin its reduction over the ranks.

        Args:
            step: The step.
            time_ns: Its time stamp.
            values: float64 [layout.sums + 2 * layout.peaks], until the next step.
        """
        if self.steps.alone:  # another thread is at the ring
            self.cluster.record(step, time_ns, _BOTH, values)
            self.cluster.newest = Reduced(step, time_ns, tuple(values))
        else:
            self.cluster.record(step, time_ns, _RANK, values)
            self.cluster.reduce(step, time_ns, Measurements(values))

    def emit_measured(self, step: int, time_ns: int, measured: list[float], now: float) -> None:
        """Record a row of the core's where a source, as it was drained, has added a scalar that only Python takes.

        Args:
            step: The step.
            time_ns: Its time stamp.
            measured: What the sources have measured, as `Recorder.measure` returns it.
            now: When the step ended, by the steady clock.
        """
        self._emit((step, time_ns, measured, self._clock.end_interval(now, step)))

    @property
    def newest(self) -> Reduced | None:
        """The newest of the cluster's values that have landed; None before the first."""
        steps, newest = self.steps, self.cluster.newest
        if steps.newest_step > (newest.step if newest is not None else -1):
            newest = self.cluster.newest = Reduced(steps.newest_step, steps.newest_ns, self.recorder.row.tolist())
        return newest

    def values(self, reduced: Reduced) -> dict[str, float]:
        """Return the cluster's values by wandb key."""
        layout = self.recorder.layout
        values = layout.by_key(*layout.split(reduced.values))
        return values | by_key(reduced.late) if reduced.late else values

    def _leave_out(self, step: int, time_ns: int, error: Exception, *, logs: bool) -> None:
        """Go on after a step that could not be recorded."""
        self._warnings.warn("step", "telemetry: step %d is not recorded: %r", step, error)
        if self.ring is not None and step == self.steps.last_step:
            self.ring.mark(step, time_ns)  # training goes on, whatever its values are
        if logs and self.cluster.last_step < step:
            # The other ranks reduce this step: without this one every later reduction would meet the wrong one.
            self.cluster.reduce(step, time_ns, None)
