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
    label_name,
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
    "counted",
    "grown",
    "label_name",
    "over",
    "pace",
    "prometheus_name",
    "rank_series",
    "risen",
]

BEFORE = "1h"
"""How old the last value before a window may be; a log step, or a receiver's outage, takes less."""
_LONGER = (("10m", 20, "10m"), ("1h", 12, "15m"))
"""Windows for rates of slow series, with the most values that such a series has in it, and the greatest age of one."""


def over(function: str, series: str, window: str) -> str:
    """Return a function of a series' samples in a window."""
    return f"{function}({series}[{window}])"


def by(aggregation: str, labels: tuple[str, ...], expression: str) -> str:
    """Return an aggregation that keeps `labels`."""
    return f"{aggregation} by ({', '.join(labels)}) ({expression})"


def counted(series: str, window: str) -> str:
    """Return what a counter of ours has counted in a window: its last value less the one before the window.

    A series is one attempt's, begins at 0 with it and never goes back, so that one without a value before the window
    has begun in it and its first value counts too. `increase` leaves that out, has none where there is one value only
    (a log step every ten minutes) and extrapolates; and no sample that is stored twice changes this difference.
    """
    last = over("last_over_time", series, window)
    return f"({last} - {_before(series, window)} or {last})"


def risen(series: str, window: str) -> str:
    """Return by how much a series has risen to its last value in a window, from the value before it or its first one.

    For what does not begin at 0: the step of a job that has resumed, and what is divided by its steps.
    """
    first = f"({_before(series, window)} or {over('min_over_time', series, window)})"
    return f"({over('last_over_time', series, window)} - {first})"


def pace(series: str, window: str) -> str:
    """Return a counter's rate in a window, in a longer one where it has fewer than two values in most of the former.

    A longer one is for slow series only: that of a job which ends or hangs must not go on.
    """
    parts = [over("rate", series, window)]
    for longer, most, newest in _LONGER:
        few = f"{over('count_over_time', series, longer)} <= {most}"
        parts.append(f"({over('rate', series, longer)} and {few} and {over('last_over_time', series, newest)})")
    return " or ".join(parts)


def grown(series: str, window: str) -> str:
    """Return a foreign counter's growth in a window, where it has grown: it may begin anew with its process.

    `increase` alone misses a series' first value, and a counter of failures may well begin at its first failure.
    """
    began = f"{over('last_over_time', series, window)} > 0 unless {_before(series, window)}"
    return f"{over('increase', series, window)} > 0 or ({began})"


def _before(series: str, window: str) -> str:
    """Return a series' last value before a window."""
    return f"last_over_time({series}[{BEFORE}] offset {window})"
