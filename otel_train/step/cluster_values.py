"""The cluster's values on their way into the ring: whoever sees first that they have landed writes them."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Sequence

import torch

from otel_train.catalogue import Phase
from otel_train.ring import Kind, RingWriter
from otel_train.step.late_values import LateValue
from otel_train.step.missing_ranks import find_missing
from otel_train.step.packing import Reduced
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer
from otel_train.step.watcher import INTERVAL, Watcher
from otel_train.torch_modes import outside_modes

logger = logging.getLogger(__name__)

_PAUSE = 0.001
"""Seconds between two looks at what is waited for."""
_CLUSTER, _COMPUTE, _REDUCTION = Kind.CLUSTER, Phase.COMPUTE, Phase.REDUCTION


class ClusterValues:
    """A rank's reductions and its ring, for the training thread and for one that looks while that one is elsewhere.

    A rank may be killed after its last step, or wait in a collective of the job's own: what has landed by then is in
    the ring without another call of the user's.

    Args:
        reducer: The reductions; only this object calls it.
        ring: The rank's ring; only this writes records into it.
    """

    def __init__(self, reducer: Reducer, ring: RingWriter | None) -> None:
        self.newest: Reduced | None = None
        """Newest values that have landed."""
        self._reducer = reducer
        self._ring = ring
        self._writes = ring is not None and reducer.group.emits
        self._lock = threading.Lock()
        self._watcher = Watcher(self._look, "otel_train reductions")
        device = reducer.group.device
        self._device = device if device.type == "cuda" else None
        self._closed = self._keeps = False
        self._named = -1
        """Number of the reduction whose missing ranks were named last."""

    @property
    def abandoned(self) -> int:
        """Reductions that were thrown away."""
        return self._reducer.abandoned

    @property
    def last_step(self) -> int:
        """The newest step whose reduction was launched; negative before the first."""
        return self._reducer.last_step

    def record(
        self, step: int, time_ns: int, kind: Kind, values: Sequence[float], late: Sequence[LateValue] = ()
    ) -> None:
        """Write a record of this rank's.

        Args:
            step: The step.
            time_ns: Its time stamp.
            kind: Whether the values are the cluster's too.
            values: float64 [sums + peaks + peaks].
            late: Values under late keys.
        """
        ring = self._ring
        if ring is None:
            return
        with self._lock:
            if late:
                ring.write(step, time_ns, kind, values, _indexed(ring, late))
            else:
                ring.write(step, time_ns, kind, values)

    def log(self, step: int, time_ns: int, values: Sequence[LateValue]) -> None:
        """Record what this rank has logged beside the steps, and give it to the next reduction.

        Args:
            step: The step that it was logged for.
            time_ns: Its time stamp.
            values: The values.
        """
        with self._lock:
            alone = self._reducer.group.handle is None
            if self._ring is not None and (late := _indexed(self._ring, values)):
                self._ring.write(step, time_ns, Kind.BOTH if alone else Kind.RANK, (), late, logged=True)
            self._reducer.log([value for value in values if value.device is not None] if alone else values)

    @outside_modes
    def reduce(self, step: int, time_ns: int, measured: Measurements | None, wait: float | None = None) -> None:
        """Launch a step's reduction, and record what is complete.

        Args:
            step: The step.
            time_ns: Its time stamp.
            measured: What this rank measured; None when it could not.
            wait: Seconds that it may take until the step's own is complete; None not to wait for it.
        """
        reducer, ring = self._reducer, self._ring
        with self._lock:
            waits = ring is not None and (wait is not None or reducer.full)
            if waits and ring is not None:
                ring.enter(_REDUCTION)
            reducer.launch(step, time_ns, measured)
            self._record(reducer.harvest() if wait is None else reducer.finish(wait))
            self._note_abandoned()
            if waits and ring is not None:
                ring.enter(_COMPUTE)
            looks = (self._writes and reducer.under_way) or reducer.lags
        if looks:
            self._watcher.wake()

    @outside_modes
    def collect(self) -> None:
        """Record what is complete."""
        with self._lock:
            self._record(self._reducer.harvest())
            self._note_abandoned()

    def _note_abandoned(self) -> None:
        if self._ring is not None and not self._closed and self._ring.abandoned != self._reducer.abandoned:
            self._ring.abandoned = self._reducer.abandoned

    def _record(self, landed: Sequence[Reduced]) -> None:
        ring = self._ring if self._writes and not self._closed else None
        for reduced in landed:
            if ring is not None:
                late = _indexed(ring, reduced.late) if reduced.late else ()
                if late or not reduced.logged:
                    values = reduced.values
                    ring.write(reduced.step, reduced.time_ns, _CLUSTER, values, late, logged=reduced.logged)
            if not (reduced.logged or self._closed):
                self.newest = reduced

    def settle(self, timeout: float) -> bool:
        """Wait until no step's reduction is under way, `timeout` seconds at most, and tell whether that is so."""
        deadline = time.monotonic() + timeout
        while True:
            self.collect()
            if self._reducer.settled or self._reducer.hurries or time.monotonic() >= deadline:
                return self._reducer.settled
            time.sleep(_PAUSE)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Record what has landed meanwhile; tell whether there is more to come."""
        oldest = self._reducer.oldest
        try:
            if self._device is not None:  # a thread's first call would make a context on the node's first GPU
                torch.cuda.set_device(self._device)
                self._device = None
            self.collect()
            self._name_missing()
        except Exception as error:  # noqa: BLE001  # a thread that ends with a traceback looks like a fault of the job's
            logger.debug("telemetry: looking for what has landed: %r", error)
        reducer = self._reducer
        if self._closed:
            # This rank is a few reductions ahead of those that go on, and they wait for it when these have landed.
            has_moved = self._reducer.oldest is not oldest
            self._watcher.interval = _PAUSE if has_moved else min(2 * self._watcher.interval, INTERVAL)
            return not self._has_ended()
        return (self._writes and reducer.under_way) or reducer.lags

    def _name_missing(self) -> None:
        """Warn of the ranks that an overdue reduction waits for."""
        reducer, oldest = self._reducer, self._reducer.oldest
        if not reducer.overdue or oldest is None or self._closed or oldest.number == self._named:
            return
        self._named = oldest.number
        missing = find_missing(reducer.group, oldest.number, lambda: reducer.oldest is oldest)
        with self._lock:
            if missing and reducer.oldest is oldest and not oldest.complete():
                reducer.warnings.missing(missing, oldest.step)

    # -- the end -------------------------------------------------------------------------------------------------

    @outside_modes
    def close(self, step: int, time_ns: int, rest: Measurements | None, timeout: float) -> None:
        """Take part for the last time, wait for what is under way, and record it; then nothing is recorded any more.

        While other ranks go on, the thread takes part in what they launch, without values, until this process ends.

        Args:
            step: The session's last step.
            time_ns: The time stamp of `rest`.
            rest: What was measured since the last log step, if anything.
            timeout: Seconds that it takes at most.
        """
        with self._lock:
            self._record(self._reducer.close(step, time_ns, rest, timeout))
            self._closed = True
            if self._ring is not None:
                self._ring.abandoned = self._reducer.abandoned
        group = self._reducer.group
        if self._reducer.stopped:  # where a peer is gone, something may be under way all the same
            group.keep()
            self._watcher.stop(INTERVAL)
        elif group.handle is None or self._reducer.ended:
            self._watcher.stop(INTERVAL)
            group.destroy()
        else:
            group.keep()
            self._keeps = True
            atexit.register(self._watcher.stop, 2 * INTERVAL)
            self._watcher.wake()

    @outside_modes
    def end(self, step: int, time_ns: int, rest: Measurements | None, deadline: float) -> None:
        """Take part for the last time, as `close` does, in a process that is about to end, and see that others can.

        A rank whose process is gone ends a reduction for its peers too: it stays until they have closed as well.

        Args:
            step: The session's last step.
            time_ns: The time stamp of `rest`.
            rest: What was measured since the last log step, if anything.
            deadline: When it has to be done, by the steady clock.
        """
        if self._reducer.group.device.type == "cuda":
            torch.cuda.set_device(self._reducer.group.device)
        if rest is not None:
            rest.await_device()
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return  # whoever has it is in the middle of it all
        try:
            self._record(self._reducer.close(step, time_ns, rest, max(0.0, deadline - time.monotonic())))
            while not self._reducer.ended and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                self._record(self._reducer.harvest())
            self._closed = True
        finally:
            self._lock.release()

    def _has_ended(self) -> bool:
        """Tell whether the other ranks have closed too, and give the process group back then."""
        reducer = self._reducer
        if reducer.ended and self._keeps:
            self._keeps = False
            atexit.unregister(self._watcher.stop)
            self._watcher.stop(0.0)
            if not reducer.stopped:
                reducer.group.let_go()
                reducer.group.destroy()
        return reducer.ended


def _indexed(ring: RingWriter, late: Sequence[LateValue]) -> list[tuple[int, float, float]]:
    """Return values as a ring takes them: what is still on a GPU, and a key for which it has no room, is left out."""
    indices = [(ring.add_key(value.metric), value) for value in late if value.device is None]
    return [(index, value.total, value.weight) for index, value in indices if index is not None]
