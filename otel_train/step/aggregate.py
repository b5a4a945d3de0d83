"""Cluster-wide values in the training process itself, in one blocking reduction: for logs, tests, and small jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from otel_train.catalogue import MAX_SUFFIX, Instrument, Metric, Reduction, rows
from otel_train.exceptions import ConfigurationError
from otel_train.step.agreed_reductions import agreed_reductions
from otel_train.step.dtensors import natural_reduction
from otel_train.step.number_reading import unreadable
from otel_train.step.rank_group import GroupLike, RankGroup
from otel_train.step.recorder import Measurements, Recorder
from otel_train.step.source_protocols import Source
from otel_train.torch_modes import outside_modes
from otel_train.untraced import untraced

_UNTIMED = (0.0, 0, 0.0)
_NOT_MEASURED = {rows.STEP_DURATION.wandb_key, rows.DATA_WAIT.wandb_key}
"""Keys of what only a session can time."""


@untraced
@outside_modes
def aggregate_step_metrics(
    sources: Sequence[Source], step: int, *, process_group: GroupLike | None = None
) -> dict[str, float]:
    """Drain the sources and return the cluster-wide values of the interval that ends with `step`.

    A collective: every rank of the group calls it with sources of the same schema. It waits; `Telemetry.step` does the
    same without waiting. The first call agrees on the schema; a later one is one `all_reduce`.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.LedgerMeter(capacity=8)
        >>> meter.store("doc-17")
        >>> otel_train.aggregate_step_metrics([meter], 1)["ledger/fresh_writes"]
        1.0

    Args:
        sources: What measures.
        step: The step that ends.
        process_group: The ranks to reduce over; all by default.

    Returns:
        The values by wandb key, the same on each rank, without histograms and without the times that a session takes.

    Raises:
        SchemaMismatchError: The ranks' sources measure different things.
        OtelTrainError: A rank is gone, at another step, or its source has raised.
    """
    group = RankGroup.of(process_group, own=False)
    recorder = Recorder(sources, ())
    flat = agreed_reductions(group).reduce(
        group, recorder.schema, step, lambda: Measurements(recorder.drain(step, _UNTIMED), recorder.device)
    )
    values = recorder.layout.by_key(*recorder.layout.split(flat))
    return {key: value for key, value in values.items() if key not in _NOT_MEASURED}


@untraced
@outside_modes
def reduce_loss_metrics(
    metrics: Mapping[str, Any], *, sum_keys: Collection[str] = (), process_group: GroupLike | None = None
) -> dict[str, float]:
    """Reduce scalars over the ranks: means by default, cluster totals for `sum_keys`, with their `_max` beside them.

    A collective that waits. The first call agrees on the keys; a later one with the same keys is one `all_reduce`.

    Examples:
        >>> import otel_train
        >>> otel_train.reduce_loss_metrics({"loss": 2.5, "tokens": 512}, sum_keys=["tokens"])
        {'loss': 2.5, 'tokens': 512.0, 'tokens_max': 512.0}

    Args:
        metrics: Numbers or tensors of one element, by key; the same keys on each rank.
        sum_keys: Keys that are reduced to the cluster total; `key + "_max"` is the largest rank's value.
        process_group: The ranks to reduce over; all by default.

    Returns:
        The cluster-wide values, the same on each rank.

    Raises:
        SchemaMismatchError: A rank gives other keys; the message names key and rank.
        ConfigurationError: A value of a rank is not a number, or a sum key is missing.
        OtelTrainError: A rank is gone.
    """
    group = RankGroup.of(process_group, own=False)
    problem = _problem(metrics, sum_keys)
    declared = () if problem else tuple(_declare(key, sum_keys, metrics[key]) for key in sorted(metrics))
    recorder = Recorder((), declared, ranks=group.job_ranks)
    if not problem:
        recorder.add(metrics)
    flat = agreed_reductions(group).reduce(
        group, recorder.schema, 0, lambda: Measurements(recorder.drain(0, _UNTIMED), recorder.device), problem
    )
    values = recorder.layout.values(*recorder.layout.split(flat))
    return {
        series.name: value
        for series, value in zip(recorder.layout.series, values, strict=True)
        if isinstance(value, float) and series.metric in declared and series.name in _series_names(series.metric)
    }


def _declare(key: str, sum_keys: Collection[str], value: Any) -> Metric:
    if key in sum_keys:
        return Metric(key, Reduction.SUM, Instrument.GAUGE, wandb_key=key, with_max=True)
    return Metric(key, natural_reduction(value), wandb_key=key)


def _series_names(metric: Metric) -> tuple[str, str]:
    return metric.name, metric.name + MAX_SUFFIX


def _problem(metrics: Mapping[str, Any], sum_keys: Collection[str]) -> str:
    """Return what is wrong with one rank's arguments, or an empty text."""
    for key in sum_keys:
        if key not in metrics:
            return f"sum_keys names {key!r}, which is not among the metrics"
    for key, value in metrics.items():
        try:
            _declare(key, sum_keys, value)
        except ConfigurationError as error:
            return str(error)
        if key in sum_keys and key + MAX_SUFFIX in metrics:
            return f"metric {key + MAX_SUFFIX!r} is what the largest of {key!r} is called; rename one of them"
        if why := unreadable(value):
            return f"metric {key!r} {why}"
    return ""
