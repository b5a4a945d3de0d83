"""Check what a user may name and declare beside the catalogue's metrics."""

from __future__ import annotations

from otel_train.catalogue import BY_NAME, MAX_SUFFIX, RANK_SUFFIX, Metric, Reduction, rank_name
from otel_train.exceptions import ConfigurationError


def _is_ours(key: str) -> bool:
    """Tell whether a key is a catalogue metric's name or wandb key, or a sibling's or a modality's of one."""
    without_rank = key.removesuffix(RANK_SUFFIX)
    bases = {key, without_rank, without_rank.removesuffix(MAX_SUFFIX)}
    return any(
        metric.name in bases
        or metric.wandb_key in bases
        or (metric.attribute and key.startswith(metric.wandb_key + "/"))
        for metric in BY_NAME.values()
    )


def check_user_key(key: str) -> None:
    """Check a scalar's key.

    Raises:
        ConfigurationError: It is a catalogue metric's, or would be read as a cluster-wide name.
    """
    if isinstance(key, str) and _is_ours(key):
        raise ConfigurationError(f"metric {key!r} is one of otel_train's own; rename yours")
    if isinstance(key, str) and rank_name(key) is not None:
        raise ConfigurationError(f"metric {key!r}: 'cluster' there marks cluster-wide values; rename it")


def check_row(metric: Metric) -> None:
    """Check that a ring can carry what a metric means: one of the catalogue's, or a plain scalar.

    Raises:
        ConfigurationError: It is neither.
    """
    if BY_NAME.get(metric.name) == metric:
        return
    check_user_key(metric.name)
    plain = metric.reduction in (Reduction.MEAN, Reduction.SUM, Reduction.MAX, Reduction.MIN)
    if not plain or metric.measures or metric.attribute or metric.with_max:
        raise ConfigurationError(
            f"metric {metric.name!r} must be a plain mean, sum, max or min, without measures, attribute or with_max; "
            "declare a metric of its own for each number"
        )
