"""Values that `self.log` was given under Lightning: at each call within a step, and those of an epoch when it ends.

Lightning shows what was logged to a logger only, by the interval of `log_every_n_steps`, and repeats there what no
step has logged anew. So its collection of results is read, which is not public: as Lightning 2.6 has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from otel_train.integrations.fit_session import FitSession
from otel_train.step import PerRow

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

EQUAL = 0.0
"""Weight of a value that is the same on all ranks, reduced by Lightning or torchmetrics: any other weight will do."""


def rows_of(batch: Any) -> int:
    """Return the number of rows of a batch: the first length of its first tensor; 1 where it has none."""
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0]) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((rows_of(part) for part in parts if isinstance(part, torch.Tensor | Mapping | list | tuple)), 1)


def watch(trainer: Trainer, take: Callable[[str, Any, float], None], weight: Callable[[Any], float]) -> None:
    """Call a function with name, value and weight whenever `self.log` gives a value of a step, for a logger.

    The value is a copy of Lightning's own, reduced over the ranks where `sync_dist` asks for that. Its weight is the
    `batch_size` of the call, else that of the batch.
    """
    results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001
    vars(results)["update_metrics"] = partial(_update, results, (take, weight))


def unwatch(trainer: Trainer) -> None:
    """Leave the trainer as it was."""
    vars(trainer.fit_loop.epoch_loop._results).pop("update_metrics", None)  # noqa: SLF001


def _update(results: Any, watcher: tuple[Any, Any], key: str, value: Any, batch_size: int) -> None:
    take, weight = watcher
    type(results).update_metrics(results, key, value, batch_size)
    item = results[key]
    if item.meta.logger and item.meta.on_step and item._forward_cache is not None:  # noqa: SLF001
        is_given = batch_size != 1 or results.batch is None
        name = results._forked_name(item, on_step=True)[1]  # noqa: SLF001
        take(name, item._forward_cache, batch_size if is_given else weight(results.batch))  # noqa: SLF001


def newest_values(trainer: Trainer) -> dict[str, Any]:
    """Return the newest value of each name that was logged, each another object than the one before."""
    return dict(trainer._logger_connector._logged_metrics)  # noqa: SLF001  # the public property would compute more


def epoch_weights(trainer: Trainer) -> dict[str, float]:
    """Return, by name, the weight of each value of the epoch: the rows of its mean, 1 for any other reduction.

    They are waited for if they are on a GPU, once an epoch.
    """
    weights = {}
    for name, item in _epoch_items(trainer):
        if not item.is_tensor or item.meta.sync.should:
            weights[name] = EQUAL
        else:
            weights[name] = float(item.cumulated_batch_size) if item.meta.is_mean_reduction else 1.0
    return weights


def epoch_values(trainer: Trainer) -> dict[str, Any]:
    """Return the values of an evaluation that has ended, by name, as Lightning has computed them for its loggers."""
    return {name: item._computed.detach() for name, item in _epoch_items(trainer) if item._computed is not None}  # noqa: SLF001


def _epoch_items(trainer: Trainer) -> list[tuple[str, Any]]:
    results = trainer._results  # noqa: SLF001  # of training or of the evaluation that runs
    items = [item for item in results.values() if item.meta.on_epoch and item.meta.logger and not item.has_reset]
    return [(results._forked_name(item, on_step=False)[1], item) for item in items]  # noqa: SLF001


def log_weighted(fit: FitSession, values: Mapping[str, Any], weights: Mapping[str, float]) -> None:
    """Log values of the newest step, those of one weight together."""
    some = next((weight for weight in weights.values() if weight != EQUAL), 1.0)
    groups: dict[float, dict[str, Any]] = {}
    for name, value in values.items():
        groups.setdefault(weights.get(name, EQUAL) or some, {})[name] = value
    for weight, group in groups.items():
        fit.log(group, fit.last_step, weight=weight)


def by_source(values: Any, meter: Any) -> PerRow:
    """Return values of a batch's rows with their sources, which the meter knows until it counts another batch."""
    rows = values if isinstance(values, PerRow) else PerRow(values)
    sources = getattr(meter, "row_sources", None)
    return (rows if rows.by is not None or sources is None else replace(rows, by=sources())).by_value()


def data_parallel_mesh(strategy: Any) -> Any:
    """Return the ranks with data of their own where the strategy is parallel in another way too; else None: all."""
    mesh: Any = getattr(strategy, "device_mesh", None)
    return mesh["data_parallel"] if "data_parallel" in (getattr(mesh, "mesh_dim_names", None) or ()) else None
