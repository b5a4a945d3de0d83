"""A logger of torchtitan's processor that has each rank's values, and logs the cluster's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from otel_train.integrations.fit_session import FitSession

_LOSS = "loss_metrics/global_avg_loss"
_OF_LAST_STAGE = (_LOSS, "loss_metrics/global_max_loss", "validation_metrics/loss")
"""Keys of which only the last stage of a pipeline has the value."""

_PEAK = "memory/max_"
"""Part of the keys of maxima, which only a step can have."""


class ClusterLogger:
    """A logger of a rank that records what it is given, and gives another one the cluster's values."""

    def __init__(self, logger: Any, trainer: Any, fit: FitSession, every: int) -> None:
        self.logger, self.trainer, self.fit, self.every = logger, trainer, fit, every
        self.keys: dict[str, None] = {}
        """Keys that were logged with a step."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record the metrics of a step, or of what comes beside it, on each rank."""
        shared, values = self._with_loss(metrics), None
        in_step = step > self.fit.last_step  # else it is a validation's, after the step
        ends = in_step and step % self.every == 0
        if in_step:
            self.keys |= dict.fromkeys(shared)
            values = self.fit.step(step, shared if ends else dict.fromkeys(shared))
        if not ends:
            self.fit.log({key: value for key, value in shared.items() if _PEAK not in key}, step)
        self.logger.log({**shared, **(values or {})}, step)

    def close(self) -> None:
        """Close the other one."""
        self.logger.close()

    def _with_loss(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return metrics with the losses that the last stage has: the others log a negative number there."""
        shared, keys = dict(metrics), [key for key in _OF_LAST_STAGE if key in metrics]
        mesh = self.trainer.parallel_dims.get_optional_mesh("pp")
        if mesh is not None and keys:
            losses = [metrics[key] if self.trainer.pp_has_last_stage else 0.0 for key in keys]
            vector = torch.tensor(losses, dtype=torch.float64, device=self.trainer.device)
            dist.all_reduce(vector, group=mesh.get_group())
            shared.update(zip(keys, vector.tolist(), strict=True))
        return {**shared, "train/loss": shared[_LOSS]} if _LOSS in shared else shared
