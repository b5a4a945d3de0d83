"""The session of a trainer's fit: begun and ended with it, one for each fit of a process, in one run while steps go on.

The adapters of trainers are made of it. A trainer's hooks call `begin`, `add`, `step`, `log` and `end`; its checkpoint
has `state_dict()`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch.distributed as dist

from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.log_once import OnceLogger
from otel_train.step import Source, Telemetry, init
from otel_train.step.rank_group import GroupLike

logger = logging.getLogger(__name__)

_OUTSIDE = "telemetry: %s came outside of a fit, and nothing of it is recorded"


class SavedMeter(Source, Protocol):
    """A source that a checkpoint keeps, such as a `SourceMeter`."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it goes on from."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""

    def load_resharded(self, states: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Go on from the states of the ranks of a job of another world size."""


class FitSession:
    """A session for each fit: `otel_train.init` when it begins, `close` when it ends.

    It may be pickled and copied: the copy has no open session, and begins one of its own. A fit that goes on where the
    one before ended, or from a checkpoint, is an attempt of the same run; one that starts over is a run of its own,
    unless the user or the launcher names the run.

    Examples:
        >>> from otel_train.integrations.fit_session import FitSession
        >>> fit = FitSession(log_every=2)
        >>> for last in (2, 4):
        ...     fit.begin(step=last - 2)
        ...     for step in (last - 1, last):
        ...         fit.add({"train/loss": 8.0 - step}, weight=16)
        ...         _ = fit.step(step)
        ...     fit.end()
        >>> fit.last_step, sorted(fit.state_dict())
        (4, ['run_id', 'step'])

    Args:
        meter: A source whose state is a checkpoint's too.
        sources: As `otel_train.init` takes them.
        telemetry: An open session of the user's own, which all fits use and none ends.
        options: Further arguments of `otel_train.init`. Of those that exist in a process group only, `process_group`
            may be a function that returns it when a fit begins.

    Raises:
        ConfigurationError: An option is none of `init`'s, or there is a session that has its own already.
    """

    def __init__(
        self,
        *,
        meter: SavedMeter | None = None,
        sources: Sequence[Source] = (),
        telemetry: Telemetry | None = None,
        **options: Any,
    ) -> None:
        if telemetry is not None and (sources or options):
            raise ConfigurationError(
                f"{', '.join(['sources'] * bool(sources) + list(options))} and telemetry were given; give these to the "
                "otel_train.init() that made the session"
            )
        try:
            inspect.signature(init).bind_partial(**options)
        except TypeError as error:
            raise ConfigurationError(f"options must be arguments of otel_train.init(): {error}") from error
        self.meter = meter
        self.last_step = 0
        """Newest step that has ended, or that the fit which began goes on from."""
        own = [] if meter is None or meter in sources else [meter]
        self._options = {**options, "sources": [*own, *sources]}
        self._users = telemetry
        self._is_alone = False
        """Whether the session is an evaluation's own."""
        self._telemetry: Telemetry | None = None
        self._run: dict[str, Any] = {}
        """State of the newest session."""
        self._loaded: dict[str, Any] = {}
        """State of a checkpoint that the next fit goes on from."""
        self._warnings = OnceLogger(logger)

    # -- a fit ---------------------------------------------------------------------------------------------------

    @property
    def telemetry(self) -> Telemetry | None:
        """Session of the fit under way; None outside of one."""
        return self._telemetry

    @property
    def makes_sessions(self) -> bool:
        """Whether each fit has a session of its own, not the user's."""
        return self._users is None

    def begin(self, step: int = 0, *, process_group: GroupLike | None = None) -> None:
        """Begin the session of a fit, on each rank; one that is open still, after a failed fit, is ended.

        Args:
            step: Steps that were taken before. Where a state was loaded it has their number.
            process_group: The ranks to reduce over where the user has named none.

        Raises:
            ConfigurationError: As `otel_train.init`.
            StateMismatchError: The state that was loaded does not fit.
        """
        if self._loaded:
            self._load_meter(self._loaded)
        self._open(step, process_group)

    def _open(self, step: int, process_group: GroupLike | None, **others: Any) -> None:
        self.end()
        run = self._loaded or (self._run if step >= self.last_step else {})
        telemetry = self._users
        if telemetry is None:
            group = self._options.get("process_group", process_group)
            options = {**self._options, "process_group": group() if callable(group) else group, **others}
            telemetry = init(**options)
        self._telemetry, self.last_step = telemetry, int(self._loaded.get("step", step))
        if run.get("run_id") and run["run_id"] != telemetry.state_dict()["run_id"]:
            telemetry.load_state_dict({"run_id": run["run_id"]})
        self._loaded = {}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have a session for what an evaluation logs: the fit's, or outside of one its own, in the last fit's run.

        One of its own has no sources, and a row under the fit's last step; that of the checkpoint where a state was
        loaded. All ranks enter it.
        """
        if self._telemetry is not None:
            yield
            return
        run, last = self._run, self.last_step
        self._open(last, None, sources=())
        self._is_alone = self._users is None
        try:
            yield
            if self._is_alone:  # a session without a step has nothing that it could log beside
                self.step(self.last_step)
        finally:
            self._is_alone = False
            self.end()
            self._run, self.last_step = run or self._run, max(last, self.last_step)

    def step(self, step: int, metrics: Mapping[str, Any] | None = None) -> dict[str, float] | None:
        """End a step; see `Telemetry.step`."""
        if self._telemetry is None:
            self._warnings.warn("step", _OUTSIDE, f"step({step})")
            return None
        self.last_step = step
        return self._telemetry.step(step, metrics)

    def add(self, metrics: Mapping[str, Any], *, weight: float = 1.0) -> None:
        """Add scalars to the step that is being made; see `Telemetry.add`."""
        if self._telemetry is None:
            self._warnings.warn("add", _OUTSIDE, "add()")
        else:
            self._telemetry.add(metrics, weight=weight)

    def log(self, metrics: Mapping[str, Any], step: int | None = None, *, weight: float = 1.0) -> None:
        """Log values that belong to no step's end, such as an evaluation's.

        Args:
            metrics: Scalars as `add` takes them.
            step: The step that they belong to; the newest one by default.
            weight: How much they count in their means.
        """
        if self._telemetry is None:
            self._warnings.warn("log", _OUTSIDE, "log()")
        elif self._is_alone:
            self._telemetry.add(metrics, weight=weight)
        else:
            self._telemetry.log(metrics, self.last_step if step is None else step, weight=weight)

    def end(self) -> None:
        """End the session of a fit, if one is open: with the exception that is being handled where this is called."""
        telemetry, self._telemetry = self._telemetry, None
        if telemetry is None:
            return
        if telemetry is not self._users:
            telemetry.close()
        self._run = telemetry.state_dict()

    # -- its checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self, *, gathered: bool = False) -> dict[str, Any]:
        """Return what a checkpoint must hold: the run's id, the steps so far, and the meter's state.

        Args:
            gathered: Whether all ranks call it together, for one checkpoint of all: it then has each rank's meter. By
                default it has this one's, for a checkpoint of each rank's own.
        """
        if self._telemetry is not None:
            self._run = self._telemetry.state_dict()
        step = self._loaded.get("step", self.last_step)
        state = {"run_id": (self._loaded or self._run).get("run_id", ""), "step": step}
        if self.meter is None:
            return state
        own = self.meter.state_dict()
        meters: list[Any] = [own]
        if gathered and dist.is_available() and dist.is_initialized():
            meters = [own] * dist.get_world_size()
            dist.all_gather_object(meters, own)
        return {**state, "meters" if gathered else "meter": meters if gathered else own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next fit go on from a checkpoint.

        Raises:
            StateMismatchError: It is no state of this class.
        """
        if not isinstance(state, Mapping) or not isinstance(state.get("run_id"), str):
            raise StateMismatchError(f"the state of a fit's telemetry must have a 'run_id', got {state!r:.100}")
        self._loaded = dict(state)

    def load_meter(self) -> None:
        """Load the meter's part of that checkpoint now, for a fit that begins after its first batch was read."""
        self._load_meter(self._loaded)
        for part in ("meter", "meters"):
            self._loaded.pop(part, None)

    def _load_meter(self, state: Mapping[str, Any]) -> None:
        if self.meter is None:
            return
        distributed = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        meters = state.get("meters")
        if meters is None:
            if "meter" in state:
                self.meter.load_state_dict(state["meter"])
        elif len(meters) == world_size:
            self.meter.load_state_dict(meters[rank])
        else:
            self.meter.load_resharded(meters, rank, world_size)

    def __getstate__(self) -> dict[str, Any]:
        state = self.state_dict() if self._telemetry is not None else {}
        return {
            **vars(self),
            "_telemetry": None,
            "_run": {"run_id": state.get("run_id") or self._run.get("run_id", "")},
        }
