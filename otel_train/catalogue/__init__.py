"""The metrics that otel_train measures: facts only, standard library only.

A metric is one row, a `Metric`, in `mixing_rows`, `ledger_rows`, `session_rows` or `bridge_rows`; `rows` gathers them.
`layout` and `computations` give every value of it, a rank's and the cluster's, `names` and `series_names` its names
outside.
"""

from otel_train.catalogue import rows
from otel_train.catalogue.computations import ABSENT, LOWEST, MOST_COUNTED, NOTHING, Value, divergence
from otel_train.catalogue.layout import Layout, Series, measures_of
from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction, Statistic
from otel_train.catalogue.names import (
    ATTEMPT_KEY,
    BY_NAME,
    BY_SOURCE,
    CONFIG_PREFIX,
    HEADLINE_KEYS,
    JUDGED_KEYS,
    MAX_SUFFIX,
    MAX_TEXT,
    MOST_BY_SOURCE,
    MOST_NESTED,
    PARTIAL_KEY,
    RANK_SUFFIX,
    RESERVED_KEYS,
    SETTING_VALUE,
    Ranges,
    cluster_name,
    headline_row,
    healthy_range,
    rank_name,
    wandb_key,
)
from otel_train.catalogue.phase import Phase
from otel_train.catalogue.rows import (
    BRIDGE,
    CATALOGUE,
    HEADLINE,
    JUDGED,
    LEDGER,
    MIXING,
    PIPELINE,
    REUSE_BOUNDS,
    SAMPLES,
    TIMING,
)

__all__ = [
    "ABSENT",
    "ATTEMPT_KEY",
    "BRIDGE",
    "BY_NAME",
    "BY_SOURCE",
    "CATALOGUE",
    "CONFIG_PREFIX",
    "HEADLINE",
    "HEADLINE_KEYS",
    "JUDGED",
    "JUDGED_KEYS",
    "LEDGER",
    "LOWEST",
    "MAX_SUFFIX",
    "MAX_TEXT",
    "MIXING",
    "MOST_BY_SOURCE",
    "MOST_COUNTED",
    "MOST_NESTED",
    "NOTHING",
    "PARTIAL_KEY",
    "PIPELINE",
    "RANK_SUFFIX",
    "RESERVED_KEYS",
    "REUSE_BOUNDS",
    "SAMPLES",
    "SETTING_VALUE",
    "TIMING",
    "HealthyRange",
    "Instrument",
    "Layout",
    "Measure",
    "Metric",
    "Per",
    "Phase",
    "Ranges",
    "Reduction",
    "Series",
    "Statistic",
    "Value",
    "cluster_name",
    "divergence",
    "headline_row",
    "healthy_range",
    "measures_of",
    "rank_name",
    "rows",
    "wandb_key",
]
