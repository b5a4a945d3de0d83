"""transformers' Trainer: a session for each train(), with each step's own loss over all ranks, and what it logs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations.integration_utils import rewrite_logs
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from otel_train.exceptions import ConfigurationError
from otel_train.integrations.fit_session import FitSession, SavedMeter
from otel_train.integrations.meter_files import read_meters, write_meter
from otel_train.integrations.transformers_hooks import SeenMethod, calling_trainer, time_batches
from otel_train.integrations.transformers_tags import track
from otel_train.mixing import SourceMeter

__all__ = ["OtelTrainCallback", "track"]

_STATE = "OtelTrain"
"""Name of the run's id among the states of callbacks, which each checkpoint has."""
_METHODS = {"training_step": "", "_get_grad_norm": "train/grad_norm", "_get_learning_rate": "train/learning_rate"}
"""Methods whose results are recorded, and the key of those that are a step's."""
_OF_THE_RUN = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}


class OtelTrainCallback(TrainerCallback):  # type: ignore[misc]  # its types are not there
    """Records what a Trainer trains: `Trainer(..., callbacks=[OtelTrainCallback()])`.

    Exact: `train/loss` of each step, over its micro-batches and over the tokens of all ranks; the `train/grad_norm`,
    `train/learning_rate` and `train/data_wait` of each step; whatever else the Trainer logs, with its step, under the
    name that its own wandb callback has for it. Its checkpoints keep the run. Not known: the rows or tokens of a batch
    whose model takes no `num_items_in_batch`: such batches count alike, as they do in training. What is evaluated
    before any train() is not recorded.

    Args:
        meter: A `SourceMeter`, which counts what is trained on, as with `track`, and which checkpoints keep.
        options: Further arguments of `FitSession`, which gives them to `otel_train.init`.
    """

    def __init__(self, *, meter: SavedMeter | None = None, **options: Any) -> None:
        self.fit = FitSession(meter=meter, **options)
        self.on_step_begin()

    def on_step_begin(self, *_args: Any, **_others: Any) -> None:
        """Forget micro-batches that no step ended."""
        self._losses: list[torch.Tensor] = []
        self._weight = 1.0
        self._values: dict[str, Any] = {}

    def on_init_end(self, *_args: Any, **_others: Any) -> None:
        """Have the Trainer keep the tags of its rows."""
        if isinstance(self.fit.meter, SourceMeter):
            track(calling_trainer()[0], self.fit.meter)

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_others: Any) -> None:
        """Begin the session, and end that of a train() which an exception has left."""
        (trainer, checkpoint), meter = calling_trainer(), self.fit.meter
        if isinstance(meter, SourceMeter) and getattr(trainer.get_train_dataloader, "meter", None) is not meter:
            raise ConfigurationError(
                "OtelTrainCallback(meter=...) must be given to the Trainer as callbacks=[...], and was added later; do "
                "that, or call otel_train.integrations.transformers.track(trainer, meter) before train()"
            )
        for name, key in _METHODS.items():
            method = getattr(trainer, name, None)
            if method is not None and getattr(method, "owner", None) is not self:
                setattr(trainer, name, SeenMethod(method, self, partial(self._see, key, trainer), self.fit.end))
        time_batches(trainer, self.fit)
        saved = (state.stateful_callbacks or {}).get(_STATE)
        if saved and state.global_step:
            loaded = dict(saved["attributes"])
            # A dataset of ours is read as far as the checkpoint by the Trainer, unless that leaves it to the state.
            if checkpoint and (args.ignore_data_skip or isinstance(meter, SourceMeter)):
                loaded |= read_meters(checkpoint, args.process_index, args.world_size)
            self.fit.load_state_dict(loaded)
        self.fit.begin(state.global_step)

    def _see(self, key: str, trainer: Any, result: Any, arguments: dict[str, Any]) -> None:
        if key:
            self._values[key] = result
        elif self.fit.telemetry is not None:
            self._losses.append(result.detach())
            tokens, args = arguments.get("num_items_in_batch"), trainer.args
            # By default all ranks divide by the tokens of all: then the mean over the ranks is right for their losses.
            if tokens is not None and args.world_size > 1 and not args.average_tokens_across_devices:
                self._weight = float(tokens)  # the Trainer itself waits for the GPU here

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        """End a step."""
        if self._losses and self._weight:  # without a token the loss is 0/0
            loss = self._losses[0]
            if len(self._losses) > 1:
                loss = torch.stack(self._losses).sum(dtype=torch.promote_types(loss.dtype, torch.float32))
            self.fit.add({"train/loss": loss}, weight=self._weight)
        self.fit.step(state.global_step, {**self._values, "train/epoch": state.epoch})
        if (telemetry := self.fit.telemetry) is not None:
            state.stateful_callbacks[_STATE] = {"args": {}, "attributes": telemetry.state_dict()}

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_others: Any) -> None:
        """Record what else the Trainer logs: evaluations, and what a subclass or another callback adds."""
        new = rewrite_logs({key: value for key, value in (logs or {}).items() if key not in _OF_THE_RUN})
        for key in ("train/loss" if self._losses else "", "train/epoch", *self._values):
            new.pop(key, None)  # the step has it
        if new:  # after a fit, each evaluation has a session of its own in that fit's run
            with self.fit.evaluating() if self.fit.last_step else nullcontext():
                self.fit.log(new, state.global_step)

    def on_save(self, args: Any, state: Any, _control: Any, **_others: Any) -> None:
        """Write this rank's meter beside the checkpoint, of which rank 0 has written the rest."""
        if self.fit.meter is not None and not state.is_hyper_param_search:
            folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            write_meter(folder, self.fit.state_dict()["meter"], args.process_index, args.world_size)

    def on_train_end(self, *_args: Any, **_others: Any) -> None:
        """End the session."""
        self.fit.end()
