"""Accelerate's tracker interface, with each process' values reduced over all of them.

Accelerate 1.15 calls trackers on the main process only, whatever their `main_process_only` is. This module has
`Accelerator.log` reach ours on every process; what it does for other trackers stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from otel_train.integrations.fit_session import FitSession, SavedMeter
from otel_train.integrations.logged_fit import LoggedFit
from otel_train.integrations.logging_ranks import logging_group
from otel_train.step import Source, Telemetry
from otel_train.step.user_config import config_facts


class OtelTrainTracker(GeneralTracker):  # type: ignore[misc]  # its types are not there
    """A tracker whose values are those of all processes.

        accelerator = Accelerator(log_with=[tracker := OtelTrainTracker()])
        accelerator.register_for_checkpointing(tracker)  # a resumed job goes on in the same run
        accelerator.log({"train/loss": loss}, step=step)  # on every process

    The session begins with the first value, and ends in `accelerator.end_training()`. See `LoggedFit` for what ends a
    step.

    Args:
        main_process_only: For scripts that log inside `if accelerator.is_main_process`: the values are its own.
        meter: A `SourceMeter` that checkpoints keep for each process: all of them must then call `save_state`.
        sources: As `otel_train.init` takes them.
        options: Further arguments of `otel_train.init`, or an open session as `telemetry`.
    """

    name = "otel_train"
    requires_logging_directory = False

    def __init__(
        self,
        *,
        main_process_only: bool = False,
        meter: SavedMeter | None = None,
        sources: Sequence[Source] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        self.main_process_only = main_process_only
        self.facts: dict[str, Any] = {}
        """Configuration that `init_trackers` was given, for people who look at the main process' ring."""
        if "telemetry" not in options:
            sources, options = [*sources, Configuration(self.facts)], {"process_group": self._ranks, **options}
        self._fit = LoggedFit(FitSession(meter=meter, sources=sources, **options))

    @property
    def tracker(self) -> Telemetry | None:
        """Session under way; None before the first value and after the end."""
        return self._fit.telemetry

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the configuration that `init_trackers` was given."""
        self.facts.update(config_facts(values))

    def log(self, values: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
        """Record numbers, or tensors of one element on any device; `accelerator.log` calls it on every process."""
        self._fit.log(values, step)

    def add(self, values: Mapping[str, Any], *, weight: float = 1.0) -> None:
        """Add the values of a micro-batch, on every process, to the step that the next `log` ends."""
        self._fit.add(values, weight=weight)

    def finish(self) -> None:
        """End the session; `accelerator.end_training` calls it."""
        self._fit.end()

    def state_dict(self) -> dict[str, Any]:
        """Return what `accelerator.save_state` keeps: the run and its newest step, and each process' meter."""
        return self._fit.state_dict(gathered=True)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the run of a checkpoint with the session that begins next; one that is open ends."""
        self._fit.load_state_dict(state)

    def _ranks(self) -> Any:
        return logging_group(alone=self.main_process_only)


class Configuration:
    """A source that measures nothing, and tells how the job was set up."""

    metrics = ()

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def drain_step_metrics(self, _step: int | None = None) -> dict[str, float]:
        """Return nothing."""
        return {}


def _reach_all_processes(log: Any) -> Any:
    @wraps(log)
    def log_everywhere(self: Accelerator, values: Any, step: int | None = None, log_kwargs: Any = None) -> None:
        ours = [tracker for tracker in dict.fromkeys(self.log_with) if isinstance(tracker, OtelTrainTracker)]
        # Scripts call init_trackers on the main process only, or twice, where Accelerate would log twice.
        self.trackers = [tracker for tracker in self.trackers if tracker not in ours] + ours
        log(self, values, step=step, log_kwargs=log_kwargs)
        for tracker in ours if not self.is_main_process else ():
            if not tracker.main_process_only:
                tracker.log(values, step=step)

    return log_everywhere


Accelerator.log = _reach_all_processes(Accelerator.log)
