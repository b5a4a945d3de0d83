"""Derive a metric's outside names (cluster-wide OTel name, wandb key, siblings) from its row."""

from __future__ import annotations

from collections.abc import Callable

from otel_train.catalogue.metric import HealthyRange, Metric
from otel_train.catalogue.rows import CATALOGUE, HEADLINE, JUDGED, MODALITY_SHARE, SAMPLES

CLUSTER = "cluster"
MAX_SUFFIX = "_max"
RANK_SUFFIX = "_rank"
MAX_TEXT = 512
"""Characters of a run's id, a metric's name or an attribute's value; the bridge takes no longer ones."""
MOST_NESTED = 8
"""Depth of lists and mappings in a setting."""
CONFIG_PREFIX = "config."
"""Beginning of a setting that is of the user's own configuration."""
SETTING_VALUE = "value"
"""The attribute with a setting's value."""
BY_SOURCE = MODALITY_SHARE.attribute
"""The attribute by which the series of a user's scalar by source differ."""
MOST_BY_SOURCE = 16_384
"""Series by source that a job's own scalars have at most, all together."""
ATTEMPT_KEY = "train/attempt"
"""The wandb key of the attempt that a row belongs to."""
PARTIAL_KEY = "telemetry/partial"
"""1 in a row that may lack values: not all of its points came in time, or it came after a later step's row."""
RESERVED_KEYS = frozenset({ATTEMPT_KEY, PARTIAL_KEY})
"""Keys of a wandb row beside those of the catalogue's metrics."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in CATALOGUE}
Ranges = Callable[[str], HealthyRange]
"""Gives the healthy range of a judged key."""


def cluster_name(name: str) -> str:
    """Return the OTel name of the cluster-wide value: `cluster` after the first part, with the name's own separator.

    A catalogue name has dots (`ledger.evictions` → `ledger.cluster.evictions`), a user's key mostly slashes
    (`train/loss` → `train/cluster/loss`); a key of one part gets it in front (`loss` → `cluster/loss`).
    """
    for index, character in enumerate(name):
        if character in "./":
            return f"{name[:index]}{character}{CLUSTER}{name[index:]}"
    return f"{CLUSTER}/{name}"


def rank_name(name: str) -> str | None:
    """Return the name that `cluster_name` made `name` from, or None where `name` is not a cluster-wide name."""
    for index, character in enumerate(name):
        if character in "./":
            marker = f"{CLUSTER}{character}"
            if name[:index] == CLUSTER:
                candidate = name[index + 1 :]
            elif name.startswith(marker, index + 1):
                candidate = name[:index] + name[index + len(marker) :]
            else:
                return None
            return candidate if candidate and cluster_name(candidate) == name else None
    return None


def wandb_key(name: str, attribute_value: str = "") -> str | None:
    """Return the wandb key of a rank's OTel name, or None where the catalogue keeps it from wandb.

    Args:
        name: The name as `rank_name` gives it; may carry the `_max` and `_rank` suffixes of a sibling.
        attribute_value: The modality of a series that has one.
    """
    base, suffix = name, ""
    while base not in BY_NAME:
        for ending in (RANK_SUFFIX, MAX_SUFFIX):
            if base.endswith(ending):
                base, suffix = base[: -len(ending)], ending + suffix
                break
        else:
            return f"{name}/{attribute_value}" if attribute_value else name  # a user's scalar has its own name
    key = BY_NAME[base].wandb_key
    if not key:
        return None
    return f"{key}{suffix}/{attribute_value}" if attribute_value else key + suffix


HEADLINE_KEYS: tuple[str, ...] = tuple(
    key
    for metric in HEADLINE
    for key in ((metric.wandb_key, metric.wandb_key + MAX_SUFFIX) if metric.with_max else (metric.wandb_key,))
)
"""The 15 wandb keys of the headline metrics."""
JUDGED_KEYS: tuple[str, ...] = (*HEADLINE_KEYS, *(metric.wandb_key for metric in SAMPLES))
"""The keys that have a healthy range: the headline ones, and those that a job need not have."""


def headline_row(key: str) -> Metric:
    """Return the judged metric that a wandb key belongs to.

    Raises:
        KeyError: `key` is not among `JUDGED_KEYS`.
    """
    for metric in JUDGED:
        if key == metric.wandb_key or (metric.with_max and key == metric.wandb_key + MAX_SUFFIX):
            return metric
    raise KeyError(key)


def healthy_range(key: str) -> HealthyRange:
    """Return the healthy range of a judged key; that of a maximum which is not judged holds everything.

    Raises:
        KeyError: `key` is not among `JUDGED_KEYS`.
    """
    metric = headline_row(key)
    assert metric.healthy is not None, "every judged row has a range"
    if key != metric.wandb_key and not metric.healthy.worst:
        return HealthyRange(statistic=metric.healthy.statistic, per=metric.healthy.per)
    return metric.healthy
