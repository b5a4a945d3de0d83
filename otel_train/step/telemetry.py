"""The session of a rank: what the training loop calls, once a step, and what it costs nothing to call."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakSet

from otel_train.catalogue import Metric, Phase
from otel_train.exceptions import StateMismatchError
from otel_train.ring import Fact, Identity, Kind, RingWriter
from otel_train.step.clock import StepClock
from otel_train.step.group import RankGroup
from otel_train.step.options import SessionOptions
from otel_train.step.packing import Reduced
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer
from otel_train.step.sidecar import SidecarProcess, wait_until
from otel_train.step.source import Source
from otel_train.step.start import Running, agree_recorder, facts_of, open_ring, shared_options, watch_phases
from otel_train.step.user_metrics import check_user_key
from otel_train.step.warnings_once import OnceLogger

if TYPE_CHECKING:  # a rank with a loader of its own need not load ours
    from otel_train.mixing import EventSink

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Looked up once: an attribute of an enum costs as much as writing a record's values.
_RANK, _CLUSTER, _BOTH = Kind.RANK, Kind.CLUSTER, Kind.BOTH
_COMPUTE, _DATA, _REDUCTION = Phase.COMPUTE, Phase.DATA, Phase.REDUCTION
_SESSIONS: WeakSet[Telemetry] = WeakSet()


def _leave_forked_child() -> None:
    """End the sessions of a forked child: its parent goes on writing the same rings."""
    for session in _SESSIONS:
        session._enabled = False  # noqa: SLF001  # the fork hook is the session's own
        atexit.unregister(session.close)


os.register_at_fork(after_in_child=_leave_forked_child)


class Telemetry:
    """One rank's telemetry; made by `otel_train.init`.

    After the first step nothing here raises into the training loop, blocks it beyond a bound, or exits it: what fails
    is counted, and logged once.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source] = (),
        metrics: Sequence[Metric] = (),
        options: SessionOptions | None = None,
        group: RankGroup | None = None,
        identity: Identity | None = None,
        keep_run_id: bool = False,
        ring_dir: Path | None = None,
        sidecar: SidecarProcess | None = None,
        events: EventSink | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        self.options = options or SessionOptions()
        self.identity = identity
        self._run_id = identity.run_id if identity is not None else ""
        self._keep_run_id = keep_run_id
        self.ring_dir = ring_dir
        self._sources = tuple(sources)
        self._declared = {metric.name: metric for metric in metrics}
        self._group = group or RankGroup.alone()
        self._alone = self._group.handle is None
        self._sidecar = sidecar
        self._events = events
        self._facts = dict(facts or {})
        self._running: Running | None = None
        self._enabled = identity is not None
        self._newest: Reduced | None = None
        self._last_step = 0
        self._clock = StepClock()
        self._warnings = OnceLogger(logger)
        # A ledger that drops what sits unused goes by steps: training must not change when telemetry is off.
        self._clocked = [
            end_step
            for source in sources
            if getattr(source, "needs_clock", False) and (end_step := getattr(source, "end_step", None)) is not None
        ]
        _SESSIONS.add(self)
        for metric in metrics:
            check_user_key(metric.name)
        if self._enabled:
            atexit.register(self.close)

    # -- the training loop ---------------------------------------------------------------------------------------

    def step(self, step: int, extra_metrics: Mapping[str, Any] | None = None) -> dict[str, float] | None:
        """Note the end of a step: record it and, at a log step, begin the reduction over the ranks.

        Args:
            step: The optimizer step, counted from 1; larger at each call.
            extra_metrics: Scalars of the user's own by key: numbers or tensors of one element, which are never
                synchronised. Means over steps and ranks unless declared otherwise in `init(metrics=…)`.

        Returns:
            With `blocking=True` the cluster-wide values of this step by wandb key; else None.

        Raises:
            SchemaMismatchError: At the first step: the ranks do not measure the same things.
            ConfigurationError: At the first step: a key or a source breaks a rule.
        """
        if not self._enabled:
            if self._clocked:  # a loop over nothing costs as much as the rest of the call
                for end_step in self._clocked:
                    end_step(step)
            return None
        now = time.perf_counter()
        running = self._running or self._start(extra_metrics or {})
        try:
            return self._step(running, step, extra_metrics, now)
        except Exception as error:  # noqa: BLE001  # the failure contract: nothing of ours raises into the training loop
            self._warnings.warn("step", "telemetry: step %d is not recorded: %r", step, error)
            if step % self.options.log_every == 0 and running.reducer.last_step < step:
                # The other ranks reduce this step: without this one every later reduction would meet the wrong one.
                running.reducer.launch(step, time.time_ns(), None)
            return None

    def _step(
        self, running: Running, step: int, scalars: Mapping[str, Any] | None, now: float
    ) -> dict[str, float] | None:
        if step <= self._last_step:
            self._warnings.warn(
                "order", "telemetry: step %d came after step %d and is not recorded", step, self._last_step
            )
            return None
        self._last_step = step
        self._clock.steps += 1
        if scalars:
            for key in running.recorder.add(scalars):
                self._warnings.warn(
                    key, "telemetry: %r was not there at the first step, or is no number, and is dropped", key
                )
        time_ns = self._clock.stamp(now)
        if step % self.options.log_every:
            running.recorder.end_step(step)
            if running.ring is not None:
                running.ring.mark(step, time_ns)
            return None
        values = self._drain(running, step, time_ns, now, _BOTH if self._alone else _RANK)
        device = running.recorder.device
        if self._alone and device is None:
            # What the one rank measured is the cluster's, and it has all the maxima.
            self._newest = Reduced(step, time_ns, values)
        else:
            self._record_cluster(running, self._reduce(running, step, time_ns, Measurements(values, device)))
        if self.options.blocking and self._newest is not None and self._newest.step == step:
            return self._values(running, self._newest)
        return None

    def _reduce(self, running: Running, step: int, time_ns: int, measured: Measurements) -> Sequence[Reduced]:
        """Launch the step's reduction, and return those that are complete; a blocking one is waited for."""
        reducer, ring = running.reducer, running.ring
        waits = self.options.blocking or reducer.full
        if waits and ring is not None:
            ring.enter(_REDUCTION)
        reducer.launch(step, time_ns, measured)
        landed = reducer.finish(self.options.reduction_timeout) if self.options.blocking else reducer.harvest()
        if waits and ring is not None:
            ring.enter(_COMPUTE)
        return landed

    @property
    def latest(self) -> tuple[int, dict[str, float]] | None:
        """The newest step whose cluster-wide values have come back, and those by wandb key; None before the first."""
        if self._running is None or self._newest is None:
            return None
        return self._newest.step, self._values(self._running, self._newest)

    @staticmethod
    def _values(running: Running, reduced: Reduced) -> dict[str, float]:
        layout = running.recorder.layout
        return layout.by_key(*layout.split(reduced.values))

    def timed(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield what `loader` yields, and measure how long each step waits for it (`train.data.wait`)."""
        iterator = iter(loader)
        while True:
            ring = self._running.ring if self._running is not None else None
            if ring is not None:
                ring.enter(_DATA)
            begin = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                if ring is not None:
                    ring.enter(_COMPUTE)
            self._clock.wait += time.perf_counter() - begin
            yield batch

    # -- recording -----------------------------------------------------------------------------------------------

    def _start(self, scalars: Mapping[str, Any]) -> Running:
        """Fix the schema with the first step's keys, agree on it over the ranks, and make the ring."""
        assert self.identity is not None, "only an enabled session starts"
        shared = shared_options(self.options, self._facts)
        recorder = agree_recorder(self._sources, self._declared, scalars, self._group, shared)
        # State may have been loaded on rank 0 only: its word holds for all, as it did for the first id.
        self._run_id = self._group.gather(self._run_id)[0]
        self.identity = replace(self.identity, run_id=self._run_id)
        reducer = Reducer(
            recorder.layout,
            self._group,
            max_in_flight=self.options.max_in_flight,
            timeout=self.options.reduction_timeout,
        )
        facts = facts_of(self._sources, self.options, self._facts)
        ring = open_ring(
            self.ring_dir,
            self.identity,
            recorder.schema,
            options=self.options,
            facts=facts,
            warnings=self._warnings,
        )
        if ring is not None:
            watch_phases(self._sources, ring)
        self._running = Running(recorder, reducer, ring)
        return self._running

    def _drain(self, running: Running, step: int, time_ns: int, now: float, kind: Kind) -> tuple[float, ...]:
        """End the interval and record it, as the rank's own alone where a part of it is still on a GPU."""
        values = running.recorder.drain(step, *self._clock.end_interval(now))
        if self._events is not None:
            self._events({"event": "drain", "step": step})
        ring = running.ring
        if ring is not None:
            if ring.abandoned != running.reducer.abandoned:
                ring.abandoned = running.reducer.abandoned
            ring.write(step, time_ns, kind if running.recorder.device is None else _RANK, values)
        return values

    def _record_cluster(self, running: Running, landed: Sequence[Reduced]) -> None:
        if not landed:
            return
        ring = running.ring
        if ring is not None and self._group.emits:
            for reduced in landed:
                ring.write(reduced.step, reduced.time_ns, _CLUSTER, reduced.values)
        self._newest = landed[-1]

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for a resumed job to go on in the same run: its id."""
        return {"run_id": self._run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the run of a checkpoint, as a new attempt; called on rank 0 at least, before the first step.

        A run id that the user gave, to `init` or in `OTEL_TRAIN_RUN_ID`, stands above the saved one.

        Raises:
            StateMismatchError: The state is none of telemetry's, or the first step was made already.
        """
        saved = state.get("run_id")
        if not isinstance(saved, str):
            raise StateMismatchError(f"telemetry's state must have a 'run_id', got {dict(state)!r:.100}")
        if self._running is not None:
            raise StateMismatchError("telemetry's state must be loaded before the first step")
        if saved and not self._keep_run_id:
            self._run_id = saved

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until everything recorded so far has been acknowledged, and tell whether it has.

        Args:
            timeout: Seconds that it takes at most.
        """
        running = self._running
        if not self._enabled or running is None or running.ring is None:
            return True
        deadline = time.monotonic() + timeout
        try:
            settled = wait_until(lambda: running.reducer.settled, timeout)
            self._record_cluster(running, running.reducer.harvest())
            return self._await_sidecar(running.ring, max(0.0, deadline - time.monotonic())) and settled
        except Exception as error:  # noqa: BLE001  # as in step
            self._warnings.warn("flush", "telemetry: nothing is known of what was sent: %r", error)
            return False

    def close(self) -> None:
        """End the session: wait for the reductions under way and then for the sidecar, `close_timeout` in all.

        What the sidecar has not sent by then it sends when it can: it outlives this process. Safe to call twice.
        """
        if not self._enabled:
            return
        self._enabled = False
        atexit.unregister(self.close)
        try:
            self._close()
        except Exception as error:  # noqa: BLE001  # as in step
            self._warnings.warn("close", "telemetry: the end is not recorded: %r", error)

    def _close(self) -> None:
        if self._sidecar is not None:
            self._sidecar.close()
        running = self._running
        if running is None:
            return
        deadline = time.monotonic() + self.options.close_timeout
        ended = self._clock.newest
        time_ns = self._clock.stamp(time.perf_counter())
        if self._clock.steps:
            self._drain(running, self._last_step, time_ns, ended, _RANK)
        self._record_cluster(running, running.reducer.finish(self.options.close_timeout))
        if running.ring is not None:
            running.ring.abandoned = running.reducer.abandoned
            running.ring.close(self._last_step, time_ns)
            if not self._await_sidecar(running.ring, max(0.0, deadline - time.monotonic())):
                logger.info("telemetry: the sidecar is still sending; what remains is in %s", running.ring.path)

    def _await_sidecar(self, ring: RingWriter, timeout: float) -> bool:
        return wait_until(lambda: ring.acknowledged >= ring.written, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
