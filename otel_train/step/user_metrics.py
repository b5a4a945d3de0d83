"""Check what a user may name and declare beside the catalogue's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from otel_train.catalogue import (
    BY_NAME,
    BY_SOURCE,
    CATALOGUE,
    MAX_SUFFIX,
    RANK_SUFFIX,
    RESERVED_KEYS,
    Instrument,
    Metric,
    Reduction,
    cluster_name,
    rank_name,
)
from otel_train.catalogue.series_names import RESERVED_SERIES, prometheus_name
from otel_train.exceptions import ConfigurationError

PLAIN_REDUCTIONS = (Reduction.MEAN, Reduction.SUM, Reduction.MAX, Reduction.MIN, Reduction.NORM)
"""Reductions of one number a rank."""
_LONGEST = 255
"""Characters of a metric's name in OpenTelemetry."""
_LONGEST_UNIT = 63
_LONGEST_DESCRIPTION = 512


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


def check_user_key(key: Any) -> None:
    """Check a scalar's key.

    Raises:
        ConfigurationError: It is not a name, or a catalogue metric's or wandb's own, or would be read as a cluster-wide
            name, or leaves nothing in Prometheus.
    """
    Metric(key)  # a text of some length, printable
    if _is_ours(key):
        raise ConfigurationError(f"metric {key!r} is one of otel_train's own; rename yours")
    if rank_name(key) is not None:
        raise ConfigurationError(f"metric {key!r}: 'cluster' there marks cluster-wide values; rename it")
    if key.startswith("_"):
        raise ConfigurationError(f"metric {key!r}: wandb keeps names that begin with '_' for itself; rename it")
    if not prometheus_name(key):
        raise ConfigurationError(
            f"metric {key!r} must have a letter or digit of ASCII, which is what Prometheus keeps of it; rename it"
        )


def check_row(metric: Metric) -> None:
    """Check that a ring and a receiver can carry what a metric means: one of the catalogue's, or a plain scalar.

    Raises:
        ConfigurationError: They can't; the message names what is lost.
    """
    if BY_NAME.get(metric.name) == metric:
        return
    check_user_key(metric.name)
    name = metric.name
    if metric.attribute and (metric.attribute != BY_SOURCE or metric.reduction is not Reduction.MEAN):
        raise ConfigurationError(
            f"metric {name!r}: by source ({BY_SOURCE}) there are means only, got a {metric.reduction} by "
            f"{metric.attribute!r:.80}; declare it without by="
        )
    if metric.reduction not in PLAIN_REDUCTIONS or metric.measures or metric.with_max:
        raise ConfigurationError(
            f"metric {name!r} must be a plain mean, sum, max, min or norm, without measures or with_max; "
            "declare a Scalar of its own for each number"
        )
    longest = _LONGEST - max(len(cluster_name(sibling)) - len(name) for sibling in _siblings(metric))
    if len(name) > longest:
        raise ConfigurationError(f"metric {name!r} must have at most {longest} characters, got {len(name)}; shorten it")
    counts = metric.instrument is Instrument.COUNTER
    if metric.instrument is Instrument.HISTOGRAM or (counts and metric.reduction is not Reduction.SUM):
        raise ConfigurationError(
            f"metric {name!r}: a {metric.reduction} must have the instrument gauge"
            f"{' or counter' if metric.reduction is Reduction.SUM else ''}, got {metric.instrument}"
        )
    if metric.wandb_key not in ("", name):
        raise ConfigurationError(
            f"metric {name!r}: wandb_key must be empty or the name, got {metric.wandb_key!r}: a scalar has one name "
            "everywhere; give it the one that you want"
        )
    if metric.bounds or metric.healthy is not None or metric.remedy:
        raise ConfigurationError(
            f"metric {name!r}: bounds, healthy and remedy are the catalogue's only; leave them out, and put an alert "
            "rule of your own into Prometheus"
        )
    for field, limit in (("unit", _LONGEST_UNIT), ("description", _LONGEST_DESCRIPTION)):
        text = getattr(metric, field)
        if not isinstance(text, str) or len(text) > limit or not text.isprintable():
            raise ConfigurationError(
                f"metric {name!r}: {field} must be at most {limit} printable characters, got {text!r:.80}"
            )


def check_names(metrics: Iterable[Metric], modalities: Sequence[str] = ()) -> None:
    """Check that no two metrics share a name somewhere: as sent, in wandb, or as Prometheus translates it.

    Args:
        metrics: All that a job measures, each checked by itself.
        modalities: Those of the job: a mean by source has a key in wandb for each.

    Raises:
        ConfigurationError: Two do, or one of them and one of the catalogue's; the message names both.
    """
    owners = dict(_names_of_ours())
    for metric in metrics:
        if metric.name in BY_NAME:
            continue
        for where, name in (*_names(metric), *_keys_by_source(metric, modalities)):
            owner = owners.setdefault((where, name), repr(metric.name))
            if owner != repr(metric.name):
                raise ConfigurationError(
                    f"metric {metric.name!r} and {owner} would both be {name!r} {where}; rename one of yours"
                )


@cache
def _names_of_ours() -> dict[tuple[str, str], str]:
    """Return what has each name that is taken, as messages have it; the first part of a name says where it holds."""
    names = {pair: metric.name for metric in CATALOGUE for pair in _names(metric)}
    names |= {(_IN_PROMETHEUS, name): name for name in RESERVED_SERIES}
    names |= {(_IN_WANDB, key): key for key in RESERVED_KEYS}
    return {pair: f"otel_train's own {name!r}" for pair, name in names.items()}


_SENT, _IN_WANDB, _IN_PROMETHEUS = "as it is sent", "in wandb", "in Prometheus"


def _siblings(metric: Metric) -> list[str]:
    """Return the names of the series that a rank has of a metric."""
    if metric.reduction in (Reduction.MAX, Reduction.MIN):
        return [metric.name, metric.name + RANK_SUFFIX]
    if metric.with_max:
        return [metric.name, metric.name + MAX_SUFFIX, metric.name + MAX_SUFFIX + RANK_SUFFIX]
    return [metric.name]


def _keys_by_source(metric: Metric, modalities: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the wandb keys of a user's scalar by source."""
    if metric.attribute:
        for modality in modalities:
            yield _IN_WANDB, f"{metric.name}/{modality}"


def _names(metric: Metric) -> Iterator[tuple[str, str]]:
    """Yield every name that a metric takes, each with where it holds."""
    for sibling in _siblings(metric):
        suffix = sibling.removeprefix(metric.name)
        key = metric.wandb_key or ("" if metric.name in BY_NAME else metric.name)
        if key:
            yield _IN_WANDB, key + suffix
        for name in (sibling, cluster_name(sibling)):
            yield _SENT, name
            instrument = Instrument.GAUGE if suffix else metric.instrument
            parts = ("bucket", "count", "sum") if instrument is Instrument.HISTOGRAM else ("",)
            for part in parts:
                yield _IN_PROMETHEUS, prometheus_name(name, metric.unit, instrument, part)
