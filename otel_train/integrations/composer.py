"""Composer's Trainer: a logger that records what it logs, each batch's loss and each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from composer.core import State
from composer.loggers import Logger, LoggerDestination

from otel_train.integrations.fit_session import FitSession
from otel_train.mixing import SourceMeter

_LOSS = "loss/train/total"
_CLOCK = "time/"
"""Beginning of the keys of Composer's clock, which between batches tells what the step does."""


class OtelTrainLogger(LoggerDestination):  # type: ignore[misc]  # composer is not there when types are checked
    """A logger of Composer's: each batch is a step, each `fit` a session.

        Trainer(..., loggers=[OtelTrainLogger(meter)])

    What Composer and its callbacks log is recorded under their names, the loss as `train/loss` too. Losses are the mean
    over the ranks, each of the same weight, however many samples it had: Composer has reduced them so. A metric of
    torchmetrics' is exact. What comes between batches, such as an evaluation, ends no step. Run and meter are in
    Composer's checkpoints. Not known: how long a batch is waited for.

    A session ends with `Trainer.close()`, the next `fit`, or the process: Composer evaluates after its last event of a
    fit.

    Args:
        meter: Counts each batch when it is trained on, and takes its tags away.
        options: Of `otel_train.init`, such as `sources`.
    """

    def __init__(self, meter: SourceMeter | None = None, **options: Any) -> None:
        self.meter = meter
        self.fit = FitSession(meter=meter, **options)
        self._batch: dict[str, Any] | None = None
        """Values that were logged in the batch that is trained on; None between batches."""

    def fit_start(self, state: State, _logger: Logger) -> None:
        """Begin a session."""
        self._batch = None  # one that failed
        self.fit.begin(state.timestamp.batch.value)

    def after_dataloader(self, state: State, _logger: Logger) -> None:
        """Count a batch that is trained on."""
        self._batch = {}
        if self.meter is not None:
            state.batch = self.meter.count(state.batch)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers, of the step that is being made or beside the steps, as an evaluation's are."""
        numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float | torch.Tensor)}
        if self.fit.telemetry is None:  # before the first fit: the state of the trainer
            return
        if self._batch is not None:
            self._batch |= {**numbers, "train/loss": numbers[_LOSS]} if _LOSS in numbers else numbers
        elif beside := {key: value for key, value in numbers.items() if not key.startswith(_CLOCK)}:
            self.fit.log(beside, step)

    def batch_end(self, state: State, _logger: Logger) -> None:
        """End a step, after the callbacks have logged what they have of it."""
        self.fit.step(state.timestamp.batch.value, self._batch)
        self._batch = None

    def close(self, _state: State, _logger: Logger) -> None:
        """End the session."""
        self.fit.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the run and all ranks' meters; a collective."""
        return self.fit.state_dict(gathered=True)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next fit go on from a checkpoint."""
        self.fit.load_state_dict(state)
