"""The names that series have in Prometheus: no series' name is typed by hand anywhere else.

The names are those of Prometheus 3 with `otlp.translation_strategy: UnderscoreEscapingWithSuffixes`; the rules are
those of github.com/prometheus/otlptranslator, `MetricNamer.Build`.
"""

from __future__ import annotations

import re

from otel_train.catalogue.metric import Instrument, Metric
from otel_train.catalogue.names import cluster_name

RUN, ATTEMPT, RANK, HOST = "train_run_id", "train_attempt", "train_rank", "host_name"
"""The labels that the promoted resource attributes become."""
OF_ATTEMPT = (RUN, ATTEMPT)
OF_RANK = (RUN, ATTEMPT, RANK, HOST)

RESERVED_SERIES = frozenset({"target_info", "otel_scope_info"})
"""Series that Prometheus makes of what all points of a resource have in common."""

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "1": "",
    "%": "percent",
}
_PER_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_INVALID = re.compile(r"[^a-zA-Z0-9:]+")


def prometheus_name(name: str, unit: str = "", instrument: Instrument = Instrument.GAUGE, part: str = "bucket") -> str:
    """Return the name under which Prometheus stores an OTel metric.

    Args:
        name: The OTel name.
        unit: Its unit in UCUM.
        instrument: Its instrument.
        part: Which series of a histogram: bucket, count, sum.
    """
    words = [word for word in _INVALID.split(name) if word]
    main, _, per = unit.partition("/")
    for suffix in (_unit_word(main, _UNITS), f"per_{word}" if (word := _unit_word(per, _PER_UNITS)) else ""):
        if suffix and suffix not in words:
            words.append(suffix)
    if instrument is Instrument.COUNTER:
        words = [*(word for word in words if word != "total"), "total"]
    if instrument is Instrument.GAUGE and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    if instrument is Instrument.HISTOGRAM:
        words.append(part)
    full = "_".join(words)
    return f"_{full}" if full[:1].isdigit() else full


def label_name(attribute: str) -> str:
    """Return the label that an attribute becomes.

    Examples:
        >>> from otel_train.catalogue.series_names import label_name
        >>> label_name("error.type")
        'error_type'
    """
    return _INVALID.sub("_", attribute)


def _unit_word(unit: str, words: dict[str, str]) -> str:
    """Return the word for a unit; an annotation in braces, such as `{pick}`, adds none."""
    unit = unit.strip()
    if "{" in unit or "}" in unit:
        return ""
    return _INVALID.sub("_", words.get(unit, unit)).strip("_")


def rank_series(row: Metric, sibling: str = "") -> str:
    """Return the name of the series that each rank has of a row, or of the row's sibling with that suffix."""
    return prometheus_name(row.name + sibling, row.unit, Instrument.GAUGE if sibling else row.instrument)


def cluster_series(row: Metric, sibling: str = "") -> str:
    """Return the name of the cluster-wide series of a row, or of its sibling; rank 0 reports it."""
    return prometheus_name(cluster_name(row.name) + sibling, row.unit, Instrument.GAUGE if sibling else row.instrument)
