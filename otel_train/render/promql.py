"""Build PromQL expressions from the names that series have in Prometheus."""

from __future__ import annotations

from otel_train.catalogue.series_names import (
    ATTEMPT,
    HOST,
    OF_ATTEMPT,
    OF_RANK,
    RANK,
    RUN,
    cluster_series,
    prometheus_name,
    rank_series,
)

__all__ = [
    "ATTEMPT",
    "HOST",
    "OF_ATTEMPT",
    "OF_RANK",
    "RANK",
    "RUN",
    "by",
    "cluster_series",
    "growth",
    "over",
    "prometheus_name",
    "rank_series",
]


def over(function: str, series: str, window: str) -> str:
    """Return a function of a series' samples in a window."""
    return f"{function}({series}[{window}])"


def by(aggregation: str, labels: tuple[str, ...], expression: str) -> str:
    """Return an aggregation that keeps `labels`."""
    return f"{aggregation} by ({', '.join(labels)}) ({expression})"


def growth(series: str, window: str) -> str:
    """Return a counter's growth in a window, where it has grown.

    `increase` alone misses a series' first value, and a counter of failures may well begin at its first failure.
    """
    began = f"{over('last_over_time', series, window)} > 0 unless last_over_time({series}[1h] offset {window})"
    return f"{over('increase', series, window)} > 0 or ({began})"
