"""torchtitan's Trainer: its steps, and what it logs on each rank as one value of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, make_dataclass
from typing import Any

import torch.distributed as dist
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.trainer import Trainer

from otel_train.exceptions import ConfigurationError
from otel_train.integrations.cluster_logger import ClusterLogger
from otel_train.integrations.distributed_checkpoint import keep_in_checkpoints
from otel_train.integrations.fit_session import FitSession
from otel_train.mixing import SourceMeter
from otel_train.step import Scalar

_DECLARED = [Scalar(f"memory/max_{kind}({unit})", "max") for kind in ("active", "reserved") for unit in ("GiB", "%")]
_DECLARED += [Scalar(f"memory/num_{events}", "sum") for events in ("alloc_retries", "ooms")]


def track(
    trainer: Any,
    meter: SourceMeter | Callable[[Any], SourceMeter] | None = None,
    *,
    metrics: Sequence[Scalar] = (),
    **options: Any,
) -> Any:
    """Have a Trainer, or the one that a config builds, record its steps and log the cluster's values; return it.

        def llama3_mixed() -> Trainer.Config:                  # in a config registry, for `torchtitan.train`
            return track(llama3_debugmodel(), meter=lambda trainer: trainer.dataloader.meter)

        trainer = track(config.build())                        # or in a script of your own

    What torchtitan logs, at step 1 and each `log_freq` steps, is reduced over its data-parallel mesh, with the sources'
    values, and goes into the row of its own loggers too: means, the largest of peak memory, sums of retries and OOMs.
    What it has reduced by itself stays as it is; `train/loss` is its global_avg_loss. At these steps the call waits for
    its one reduction, as torchtitan has for the loss just before: the asynchronous values that are there by then are
    those of `log_freq` steps earlier. No other step waits. What is logged beside these steps, at step 1 and by a
    validation, has a row of its own, as means without peaks of memory, and is not added to torchtitan's own row.

    Args:
        trainer: One that has not begun, or a `Trainer.Config`.
        meter: Counts each batch when it is trained on, and is kept in checkpoints; or a function of the trainer.
        metrics: As `otel_train.init` takes them; one of torchtitan's own keys, too.
        options: Others of `otel_train.init`, such as `sources`.

    Raises:
        ConfigurationError: It is neither, or an option is none of `init`'s.
    """
    if isinstance(trainer, Trainer.Config):
        return _tracked_config(trainer, meter=meter, metrics=metrics, **options)
    if not isinstance(trainer, Trainer):
        raise ConfigurationError(
            f"trainer must be a Trainer or a Trainer.Config as torchtitan 0.3 has them, got {type(trainer).__name__}"
        )
    processor, own = trainer.metrics_processor, {metric.name for metric in metrics}
    defaults = {
        "log_every": processor.config.log_freq,
        "blocking": True,
        "process_group": _data_parallel_group(trainer.parallel_dims),
        "metrics": [*metrics, *(scalar for scalar in _DECLARED if scalar.name not in own)],
    }
    counter = meter(trainer) if callable(meter) else meter
    fit = FitSession(meter=counter, **{**defaults, **options})
    processor.logger = ClusterLogger(processor.logger, trainer, fit, {**defaults, **options}["log_every"])
    if isinstance(trainer.checkpointer, CheckpointManager) and trainer.checkpointer.enable:
        keep_in_checkpoints(trainer.checkpointer, fit, processor.logger.keys)
    train, read, take_step = trainer.train, trainer.batch_generator, trainer.train_step

    def batch_generator(loader: Any) -> Iterator[Any]:
        fit.begin(trainer.step)  # a checkpoint has been loaded
        fit.add(dict.fromkeys(processor.logger.keys))
        batches = read(loader) if fit.telemetry is None else fit.telemetry.timed(read(loader))
        return iter(batches if counter is None else counter.counted(batches))

    def train_step(batches: Any) -> None:
        take_step(batches)
        if fit.last_step < trainer.step:
            fit.step(trainer.step)

    def train_to_end() -> None:
        try:
            train()
        finally:
            fit.end()

    trainer.batch_generator, trainer.train_step, trainer.train = batch_generator, train_step, train_to_end
    return trainer


def _data_parallel_group(dims: Any) -> Any:
    """Return the group over which no two ranks read the same data: of one rank each, where all read the same."""
    if dims.dp_enabled or dims.world_size == 1:
        return dims.get_optional_mesh("batch")
    return dist.new_subgroups(1)[0]  # the mesh has a fake one, in which no rank meets the others of the job


def _tracked_config(config: Any, **given: Any) -> Any:
    """Return a config of the same fields, as a command line reads it, whose trainer is tracked."""
    kind = type(config)

    def build(self: Any, **others: Any) -> Any:
        return track(kind.build(self, **others), **given)

    tracked = make_dataclass(kind.__name__, (), bases=(kind,), namespace={"build": build}, kw_only=True, slots=True)
    return tracked(**{field.name: getattr(config, field.name) for field in fields(config) if field.init})
