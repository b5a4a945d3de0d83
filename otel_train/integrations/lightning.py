"""Lightning's Trainer: a callback that records each optimizer step, what `self.log` is given, and each evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from otel_train.integrations import lightning_results as logged
from otel_train.integrations.fit_session import FitSession, SavedMeter
from otel_train.integrations.pending_step import LOSS, PendingStep

# Each of the package's two names has a class of its own: that of the one which the program has imported.
if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback
_TRANSFER = "_on_before_batch_transfer"


class OtelTrainCallback(Callback):  # type: ignore[misc]  # its types are not there
    """A callback that keeps a session for each fit: `Trainer(callbacks=[OtelTrainCallback()])`.

    Args:
        meter: A `SourceMeter`: each training batch is counted when it is trained on, its state is in the checkpoint.
        weight: Returns how much a training batch counts in the means, such as its tokens; its rows by default.
        options: Arguments of `otel_train.init`, or `telemetry`; see `FitSession`.
    """

    def __init__(
        self, *, meter: SavedMeter | None = None, weight: Callable[[Any], float] = logged.rows_of, **options: Any
    ) -> None:
        self.fit = FitSession(meter=meter, **options)
        self._weight = weight
        self._step = PendingStep(self.fit)
        self._optimizer_steps = -1
        self._before: dict[str, Any] | None = None  # what was logged when an epoch's last step had ended
        self._epoch_weights: dict[str, float] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin a session: the ranks have met, a checkpoint is loaded, and the sanity check is over."""
        step = self.fit.last_step if trainer.global_step == self._optimizer_steps else trainer.global_step
        self.fit.begin(step, process_group=logged.data_parallel_mesh(trainer.strategy))
        self._optimizer_steps, self._before = trainer.global_step, None
        self._step.reset()
        logged.watch(trainer, self._step.take, self._weight)
        if self.fit.meter is not None:  # the last hook that may change a batch; the loader is one batch ahead
            vars(module)[_TRANSFER] = partial(self._count, trainer, partial(getattr(type(module), _TRANSFER), module))

    def _count(self, trainer: Any, transfer: Any, batch: Any, **options: Any) -> Any:
        if trainer.training:
            self._step.begin_batch()  # what is counted now is the next step's
            meter: Any = self.fit.meter
            batch = meter.count(batch)
        return transfer(batch, **options)

    def on_train_batch_start(self, *_: Any) -> None:
        """End the step before: no hook comes after all that a step logs."""
        self._step.begin_batch()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Take the loss of a micro-batch, which Lightning has divided by their number where it optimizes by itself."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            parts = trainer.accumulate_grad_batches if module.automatic_optimization else 1
            self._step.take_loss(loss.detach() * parts, self._weight(batch))
        if isinstance(outputs, Mapping) and LOSS in outputs:  # of each row, beside the one that is optimized
            self._step.take(LOSS, logged.by_source(outputs[LOSS], self.fit.meter), 1.0)
        self._step.ends = trainer.global_step > self._optimizer_steps  # of two optimizers each takes a step in a batch
        self._optimizer_steps = trainer.global_step

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """End the last step, and note what is logged before the values of the epoch come."""
        self._step.end()
        self._before = logged.newest_values(trainer)
        self._epoch_weights = logged.epoch_weights(trainer)

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        """Log the values of the epoch before, which Lightning computes after all hooks at its end."""
        before, self._before = self._before, None
        if before is not None:
            values = {name: new for name, new in logged.newest_values(trainer).items() if new is not before.get(name)}
            logged.log_weighted(self.fit, values, self._epoch_weights)

    def on_validation_start(self, *_: Any) -> None:
        """End the step that is evaluated."""
        self._step.end()

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """Log the values of an evaluation; the sanity check is none."""
        if not trainer.sanity_checking:
            with self.fit.evaluating():
                logged.log_weighted(self.fit, logged.epoch_values(trainer), logged.epoch_weights(trainer))

    on_test_end = on_validation_end

    def on_train_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """End the session, with the exception that is being handled if there is one."""
        self._step.end()
        self.on_train_epoch_start(trainer)
        self.fit.end()
        logged.unwatch(trainer)
        vars(module).pop(_TRANSFER, None)

    on_exception = on_train_end

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, of all ranks: all of them save it together."""
        self._step.end()
        return self.fit.state_dict(gathered=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the fit go on from a checkpoint."""
        self.fit.load_state_dict(state_dict)
