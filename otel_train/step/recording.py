"""Record the steps of a session whose schema is known: a row each log step, in the ring and over the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_train.catalogue import Phase
from otel_train.ring import Kind, RingWriter
from otel_train.step.clock import Interval, StepClock
from otel_train.step.options import SessionOptions
from otel_train.step.packing import Reduced
from otel_train.step.recorder import Measurements, Recorder
from otel_train.step.reduction import Reducer
from otel_train.step.warnings_once import OnceLogger

if TYPE_CHECKING:  # a rank with a loader of its own need not load ours
    from otel_train.mixing import EventSink

# Looked up once: an attribute of an enum costs as much as writing a record's values.
_RANK, _CLUSTER, _BOTH = Kind.RANK, Kind.CLUSTER, Kind.BOTH
_COMPUTE, _REDUCTION = Phase.COMPUTE, Phase.REDUCTION


class Row(NamedTuple):
    """A log step that is about to be recorded: all but its scalars, which go on until then."""

    step: int
    time_ns: int
    measured: list[float]
    """What the sources measured."""
    interval: Interval


class Recording:
    """What exists from the first step on.

    Args:
        recorder: This rank's measurements.
        reducer: Brings them together over the ranks.
        ring: This rank's; None where it could not be made.
        options: The session's.
        clock: The session's.
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
        warnings: OnceLogger,
        events: EventSink | None,
    ) -> None:
        self.recorder, self.reducer, self.ring = recorder, reducer, ring
        self.newest: Reduced | None = None
        """The newest step whose cluster-wide values have come back."""
        self.last_step = -1
        """The last step that has ended."""
        self.repeats = not options.blocking
        """Whether a step was given again since the last log step, or the first one may be."""
        self._held: Row | None = None
        """A row that waits for further calls of its step."""
        self._open = False
        """Whether scalars came beside the steps since the last record."""
        self._alone = reducer.group.handle is None
        self._options = options
        self._clock = clock
        self._warnings = warnings
        self._events = events

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self, step: int, scalars: Mapping[str, Any] | None, now: float) -> dict[str, float] | None:
        """End a step that is larger than the last one; see `Telemetry.step`."""
        try:
            return self._step(step, scalars, now)
        except Exception as error:  # noqa: BLE001  # the failure contract: nothing of ours raises into the training loop
            self._leave_out(step, self._clock.stamp(now), error)
            return None

    def _step(self, step: int, scalars: Mapping[str, Any] | None, now: float) -> dict[str, float] | None:
        if self._held is not None:
            self.release()
        self.last_step = step
        if scalars is not None:
            self.recorder.add(scalars)
        time_ns = self._clock.stamp(now)
        if step % self._options.log_every:
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
        if self._options.blocking and self.newest is not None and self.newest.step == step:
            return self.values(self.newest)
        return None

    def repeat(self) -> bool:
        """Note that the last step is given once more, and tell whether it can still take what comes with that."""
        self.repeats = not self._options.blocking
        return self._held is not None or self.last_step % self._options.log_every != 0

    def add(self, scalars: Mapping[str, Any], weight: float = 1.0) -> None:
        """Add scalars beside a step: to a row that is held, else to the step that is being made."""
        self._open = True
        self.recorder.add(scalars, weight)

    def release(self) -> None:
        """Emit the row that is held, if there is one: nothing is added to its step any more."""
        row, self._held = self._held, None
        if row is not None:
            try:
                self._emit(row)
            except Exception as error:  # noqa: BLE001  # as in step
                self._leave_out(row.step, row.time_ns, error)

    def record_rest(self, time_ns: int, ended: float) -> None:
        """Record what came since the last record, as the rank's own.

        Args:
            time_ns: The time stamp.
            ended: When the last step ended, by the steady clock.
        """
        self.release()
        try:
            recorded = self._clock.last_step
            if recorded is not None and recorded >= self.last_step:
                if not self._open:
                    return
                self.last_step = recorded + 1  # what comes after a step belongs to the one that is being made
            self._record(self._measure(self.last_step, time_ns, ended), _RANK)
        except Exception as error:  # noqa: BLE001  # as in step
            self._warnings.warn("step", "telemetry: step %d is not recorded: %r", self.last_step, error)

    # -- rows ----------------------------------------------------------------------------------------------------

    def _measure(self, step: int, time_ns: int, now: float) -> Row:
        """End the sources' interval; the scalars' goes on until the row is emitted."""
        measured = self.recorder.measure(step)
        if self._events is not None:
            self._events({"event": "drain", "step": step})
        return Row(step, time_ns, measured, self._clock.end_interval(now, step))

    def _emit(self, row: Row) -> None:
        """Record a row, and begin its reduction over the ranks."""
        values = self._record(row, _BOTH if self._alone else _RANK)
        device = self.recorder.device
        if self._alone and device is None:
            # What the one rank measured is the cluster's, and it has all the maxima.
            self.newest = Reduced(row.step, row.time_ns, values)
        else:
            self.record_cluster(self._reduce(row, Measurements(values, device)))

    def _record(self, row: Row, kind: Kind) -> tuple[float, ...]:
        """Record a row, as the rank's own alone where a part of it is still on a GPU."""
        values = self.recorder.complete(row.measured, row.interval)
        self._open = False
        ring = self.ring
        if ring is not None:
            if ring.abandoned != self.reducer.abandoned:
                ring.abandoned = self.reducer.abandoned
            ring.write(row.step, row.time_ns, kind if self.recorder.device is None else _RANK, values)
        return values

    def _reduce(self, row: Row, measured: Measurements) -> Sequence[Reduced]:
        """Launch the row's reduction, and return those that are complete; a blocking one is waited for."""
        reducer, ring = self.reducer, self.ring
        waits = self._options.blocking or reducer.full
        if waits and ring is not None:
            ring.enter(_REDUCTION)
        reducer.launch(row.step, row.time_ns, measured)
        landed = reducer.finish(self._options.reduction_timeout) if self._options.blocking else reducer.harvest()
        if waits and ring is not None:
            ring.enter(_COMPUTE)
        return landed

    def record_cluster(self, landed: Sequence[Reduced]) -> None:
        """Record the cluster's values of the steps whose reductions are complete."""
        if not landed:
            return
        ring = self.ring
        if ring is not None and self.reducer.group.emits:
            for reduced in landed:
                ring.write(reduced.step, reduced.time_ns, _CLUSTER, reduced.values)
        self.newest = landed[-1]

    def values(self, reduced: Reduced) -> dict[str, float]:
        """Return the cluster's values by wandb key."""
        layout = self.recorder.layout
        return layout.by_key(*layout.split(reduced.values))

    def _leave_out(self, step: int, time_ns: int, error: Exception) -> None:
        """Go on after a step that could not be recorded."""
        self._warnings.warn("step", "telemetry: step %d is not recorded: %r", step, error)
        if self.ring is not None and step == self.last_step:
            self.ring.mark(step, time_ns)  # training goes on, whatever its values are
        if step % self._options.log_every == 0 and self.reducer.last_step < step:
            # The other ranks reduce this step: without this one every later reduction would meet the wrong one.
            self.reducer.launch(step, time_ns, None)
