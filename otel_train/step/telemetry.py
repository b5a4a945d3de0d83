"""The session of a rank: what the training loop calls once a step, and what costs nothing to call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from otel_train.catalogue import Metric
from otel_train.event_sink import EventSink
from otel_train.exceptions import SessionCopyError, StateMismatchError
from otel_train.log_once import OnceLogger
from otel_train.ring import End
from otel_train.step.admission import Admission
from otel_train.step.clock import StepClock
from otel_train.step.core_steps import CoreSteps
from otel_train.step.declarations import Scalar, declared_metrics
from otel_train.step.early_scalars import EarlyScalars
from otel_train.step.end_after_call import EndAfterCall
from otel_train.step.options import SessionOptions
from otel_train.step.per_row import RowBinding
from otel_train.step.process_end import ProcessEnd
from otel_train.step.rank_group import RankGroup
from otel_train.step.session_end import CLOSED, FORKED, UNMADE, SessionEnd, await_sidecar
from otel_train.step.signal_watch import WATCH
from otel_train.step.source_protocols import Source, clock_of
from otel_train.step.step_number import LARGEST_STEP, text_of
from otel_train.untraced import untraced

if TYPE_CHECKING:  # what only a session that records needs is loaded by `init`
    from otel_train.ring import Fact, Identity
    from otel_train.step.membership import Membership
    from otel_train.step.recording import Recording
    from otel_train.step.sidecar_process import SidecarProcess

logger = logging.getLogger(__name__)

T = TypeVar("T")


@untraced
class Telemetry:
    """One rank's telemetry; made by `otel_train.init`.

    After the first step nothing here raises into the training loop, blocks it beyond a bound, or exits it: what fails
    is counted, and logged once.

    Examples:
        >>> import otel_train
        >>> with otel_train.init(blocking=True) as telemetry:
        ...     for loss, tokens in ((2.0, 100), (3.0, 300)):  # two micro-batches
        ...         telemetry.add({"train/loss": loss}, weight=tokens)
        ...     values = telemetry.step(1, {"train/lr": 1e-3})
        >>> values["train/loss"], values["train/lr"]
        (2.75, 0.001)
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source] = (),
        metrics: Sequence[Scalar | Metric] = (),
        options: SessionOptions | None = None,
        join: Callable[[str], Membership] | None = None,
        keep_run_id: bool = False,
        events: EventSink | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        self.options = options or SessionOptions()
        self.identity: Identity | None = None
        """Identity of this rank; None until the ranks have met, at the first step at the latest."""
        self.ring_dir: Path | None = None
        """Directory of the ring; None until the ranks have met, and where there can be none."""
        self._join = join
        self._run_id = ""
        self._keep_run_id = keep_run_id
        self._sources = tuple(sources)
        self._declared = declared_metrics(metrics)
        self._rows = RowBinding(metrics, self._declared, self._sources)
        self._group = RankGroup.alone()
        self._sidecar: SidecarProcess | None = None
        self._delivers = True
        """Whether what is recorded is sent anywhere."""
        self._events = events
        self._facts = dict(facts or {})
        self._running: Recording | None = None
        self._enabled = join is not None
        self._steps, self._clock = CoreSteps(), StepClock()
        self._off = ""
        """Reason for which nothing is recorded any more, as a message about a call; empty where nothing is expected."""
        self._warnings = OnceLogger(logger)
        self._early = EarlyScalars()
        self._admission = Admission(self._early, self._rows, self._warnings)
        # A ledger that drops what sits unused goes by steps: training must not change when telemetry is off.
        self._clocked = [end_step for source in sources if (end_step := clock_of(source)) is not None]
        self._session_end = SessionEnd(self._clock, self.options.close_timeout)
        self._after_call = EndAfterCall(self._steps, self.options.close_timeout)
        hooks = partial(self._end, End.PROCESS), self._leave_forked_child, self._end_by_signal
        self._process_end = ProcessEnd(*hooks) if self._enabled else None

    # -- the training loop ---------------------------------------------------------------------------------------

    def step(
        self, step: int, extra_metrics: Mapping[str, Any] | None = None, *, by: Any = None
    ) -> dict[str, float] | None:
        """Note the end of a step: record it and, at a log step, begin the reduction over the ranks.

        A step may be given several times, by micro-batches or by an evaluation: its scalars are those of all its calls,
        and it goes out when the next step is given, or at `flush` and `close`. That holds from the first step on for
        whoever repeats steps; after steps that were given once, a repetition comes too late, and its scalars are
        recorded beside the step as `log` does it, in one row for all such calls (maxima and minima go into the next
        step). What sources measure belongs to the call that follows it. `add` takes values before their step ends.

        Args:
            step: The optimizer step, from 0 or 1 on; not smaller than at the call before. An int, or what is one by
                value: NumPy's, a tensor of one element (one on a GPU is waited for). A call with another number ends
                no step: that is logged once, and its scalars go into the next step.
            extra_metrics: Scalars of the user's own by key: numbers or tensors of one element, which are never
                synchronised. Means over steps and ranks unless declared otherwise in `init(metrics=…)`. A key may
                come, and stay away, at any step and on any rank: None, or leaving it out, stands for no value, and what
                no rank gives in an interval is absent. (Keys of the first step cost less than later ones, of which
                there may be 128.) What is not a number is dropped, counted and logged once. A DTensor stands for the
                whole that its parts make.
            by: Sources of the batch's rows, for values by row (`PerRow`); those of the meter's last batch when None.

        Returns:
            With `blocking=True` the cluster-wide values of this step by wandb key, at its first call; else None.

        Raises:
            SchemaMismatchError: At the first step: the ranks do not measure the same things.
            ConfigurationError: At the first step: a key or a source breaks a rule.
        """
        if not self._enabled:
            if self._clocked or self._off:  # a disabled session costs an attribute each
                self._records(f"step({text_of(step)})")
                self._admission.pass_on(step, self._steps, self._clocked)
            return None
        now = time.perf_counter()
        if self._rows.needed or by is not None:
            extra_metrics = self._rows.bind(extra_metrics, by)
        if type(step) is not int or not self._steps.given < step <= LARGEST_STEP:
            number = self._admission.admit(step, extra_metrics, self._steps.given, self._running)
            if number is None:
                return None
            step = number
        running = self._running or self._start({} if extra_metrics is None else extra_metrics)
        self._steps.given = step
        return running.step(step, extra_metrics, now)

    _own_step = step

    def add(self, metrics: Mapping[str, Any], *, weight: float = 1.0, by: Any = None) -> None:
        """Add scalars to the step that is being made, without ending it: once a micro-batch, say.

            for batch in micro_batches:
                telemetry.add({"train/loss": loss(batch)}, weight=len(batch))
            telemetry.step(step)

        Args:
            metrics: Scalars as `step` takes them.
            weight: How much they count in their means; of no meaning for sums, maxima and minima, and values by row.
            by: As `step` takes it.
        """
        if self._records("add()"):
            self._admission.add(metrics, weight, by, self._running)

    def log(self, metrics: Mapping[str, Any], step: int | None = None, *, weight: float = 1.0) -> None:
        """Record scalars that belong to no step boundary, such as an evaluation's, under the step that they belong to.

            if step % 500 == 0:
                telemetry.log({"eval/loss": evaluate(model)})

        They become a row of their own in wandb, with that `train/step`, when the next reduction or `close` has brought
        them together; a call ends no step, and any rank may make it at any time. Means are over the ranks that have
        called it for the step.

        Args:
            metrics: Scalars as `step` takes them; a maximum or minimum goes to `step` or `add` instead.
            step: The step that they belong to; None for the last one that has ended.
            weight: How much they count in their means: the samples that were evaluated, say.
        """
        if self._records("log()"):
            self._admission.log(metrics, step, weight, self._steps.given, self._running)

    def _records(self, call: str) -> bool:
        """Tell whether calls are recorded, and the user, once, why not where that is not expected."""
        if not self._enabled and self._off and not self._session_end.await_exit():
            self._warnings.warn("off", self._off, call)
        return self._enabled

    @property
    def refused(self) -> int:
        """Calls of `step` that ended no step: their argument is not a step number, or is smaller than the last one."""
        return self._admission.refused

    @property
    def latest(self) -> tuple[int, dict[str, float]] | None:
        """The newest step whose cluster-wide values have come back, and those by wandb key; None before the first."""
        newest = self._running.newest if self._running is not None else None
        return None if self._running is None or newest is None else (newest.step, self._running.values(newest))

    def timed(self, loader: Iterable[T]) -> Iterator[T]:
        """Return what yields what `loader` yields, and measures how long each step waits for it (`train.data.wait`)."""
        return self._clock.timed(loader, lambda: self._running.ring if self._running is not None else None)

    # -- recording -----------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Join the job: a collective, called once, as soon as there is a process group.

        Raises:
            ConfigurationError: There are several ranks and no process group, or a rank's run id breaks a rule.
        """
        assert self._join is not None, "a disabled session joins nothing"
        member = self._join(self._run_id)
        self._group, self._sidecar = member.group, member.sidecar
        self.identity, self.ring_dir = member.identity, member.ring_dir
        self._run_id = member.identity.run_id
        self._facts |= member.facts
        self._delivers = member.delivers

    def _start(self, scalars: Mapping[str, Any]) -> Recording:
        """Fix the schema with the first step's keys, agree on it over the ranks, and make the ring."""
        from otel_train.step import first_step  # noqa: PLC0415  # loaded by then; a disabled session never needs it
        from otel_train.step.recording import Recording  # noqa: PLC0415
        from otel_train.step.reduction import Reducer  # noqa: PLC0415

        if self.identity is None:
            self.join()
        assert self.identity is not None, "only an enabled session starts"
        shared = first_step.shared_options(self.options, self._facts)
        first = {**self._early.newest(), **scalars} if isinstance(scalars, Mapping) else scalars
        recorder = first_step.agree_recorder(
            self._sources,
            self._declared,
            first,
            self._group,
            options=shared,
            dropped=partial(first_step.warn_of_dropped, self._warnings),
            modalities=self._rows.modalities,
        )
        # State may have been loaded on rank 0 only: its run id holds for all, as it did for the first id.
        self._run_id = self._group.gather(self._run_id)[0]
        self.identity = replace(self.identity, run_id=self._run_id)
        reducer = Reducer(
            recorder.layout,
            self._group,
            max_in_flight=self.options.max_in_flight,
            timeout=self.options.reduction_timeout,
        )
        facts = first_step.session_facts(self._sources, self.options, self._facts, self.identity)
        ring = first_step.open_ring(
            self.ring_dir,
            self.identity,
            recorder.schema,
            options=self.options,
            facts=facts,
            warnings=self._warnings,
        )
        if ring is not None:
            first_step.watch_phases(self._sources, ring)
        running = Recording(
            recorder,
            reducer,
            ring,
            options=self.options,
            clock=self._clock,
            steps=self._steps,
            settled=self._settle,
            warnings=self._warnings,
            events=self._events,
        )
        for early, weight, logged_for in self._early.take():
            if logged_for is None:
                running.add(early, weight)
            else:
                running.log(logged_for, early, weight)
        self._running = running
        return running

    def _settle(self) -> None:
        """Have the core make the steps from now on; it calls `step` for those that are not like most."""
        own = type(self).step is Telemetry._own_step and "step" not in vars(self)  # and nobody wraps it
        if self._running is not None and own and self._enabled and not self._rows.needed:
            vars(self)["step"] = self._steps.hand_over(self._running, self._clock, self._own_step)

    def _let_go(self, off: str) -> None:
        """Have nothing recorded any more, for a reason."""
        self._enabled, self._off = False, off
        self._steps.unbind()

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for a resumed job to go on in the same run: its id."""
        return {"run_id": self._run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the run of a checkpoint, as a new attempt; called on rank 0 at least, before the first step.

        A run id that the user gave, to `init` or in `OTEL_TRAIN_RUN_ID`, overrides the saved one.

        Raises:
            StateMismatchError: The state is not one of telemetry's, or the first step was made already.
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
            running.release()
            settled = running.cluster.settle(timeout)
            remaining = max(0.0, deadline - time.monotonic())
            return await_sidecar(running, remaining, delivers=self._delivers) and settled
        except Exception as error:  # noqa: BLE001  # as in step
            self._warnings.warn("flush", "telemetry: it is unknown what was sent: %r", error)
            return False

    def close(self) -> None:
        """End the session: wait for the reductions under way and then for the sidecar, `close_timeout` in all.

        What the sidecar has not sent by then it sends when it can: it outlives this process. Safe to call twice, and
        from a signal's handler: where that interrupts a call of the session's, the session ends after that call.
        """
        self._end(End.CLOSED)

    def _leave_forked_child(self) -> None:
        self._let_go(FORKED)

    def _end(self, end: End) -> None:
        if WATCH.await_end() or self._process_end is None:
            return
        if self._enabled:
            self._let_go(self._session_end.begin(end))
            error = self._process_end.error(of_process=end is End.PROCESS)
            self._after_call.end(self._finish, end, error, lambda: self._running)
        else:
            self._after_call.wait()

    def _finish(self, end: End, error: str) -> None:
        assert self._process_end is not None, "only an enabled session ends"
        try:
            if self._sidecar is not None:
                self._sidecar.close()
            if self._running is not None:
                self._session_end.close(self._running, self._sidecar, end, error, delivers=self._delivers)
            elif self._early:
                self._warnings.warn("unmade", UNMADE)
            if self._running is None:
                self._group.destroy()
        except Exception as failure:  # noqa: BLE001  # as in step
            self._warnings.warn("close", "telemetry: the end is not recorded: %r", failure)
        finally:
            self._process_end.cancel()

    def _end_by_signal(self, name: str, deadline: float) -> None:
        """End the session from a thread of its own, quietly: the process ends then."""
        running = self._running
        if running is None:
            return
        if not self._enabled:
            self._session_end.await_recorded(deadline)
            return
        try:
            self._session_end.by_signal(running, name, deadline, lambda: self._let_go(CLOSED.replace("close()", name)))
        finally:
            WATCH.remove(self._end_by_signal)

    def __reduce__(self) -> NoReturn:
        raise SessionCopyError(
            "a telemetry session can't be pickled or copied: it belongs to its process; call otel_train.init() in the "
            "function that each process runs (a Lightning callback: in its setup() or on_train_start()), and keep "
            "telemetry.state_dict() in checkpoints"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
