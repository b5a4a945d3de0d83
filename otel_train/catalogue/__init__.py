"""The metrics that otel_train measures: facts only, standard library only.

A metric is one row, a `Metric`, in `mixing_rows`, `ledger_rows`, `session_rows` or `bridge_rows`; `rows` gathers them.
`layout` computes every value of it, a rank's and the cluster's, and `names` and `series_names` give its names outside.
"""

from otel_train.catalogue import rows
from otel_train.catalogue.layout import (
    ABSENT,
    LOWEST,
    MOST_COUNTED,
    NOTHING,
    Layout,
    Series,
    Value,
    divergence,
    measures_of,
)
from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction, Statistic
from otel_train.catalogue.names import (
    ATTEMPT_KEY,
    BY_NAME,
    HEADLINE_KEYS,
    MAX_SUFFIX,
    MAX_TEXT,
    PARTIAL_KEY,
    RANK_SUFFIX,
    RESERVED_KEYS,
    Ranges,
    cluster_name,
    headline_row,
    healthy_range,
    rank_name,
    wandb_key,
)
from otel_train.catalogue.phase import Phase
from otel_train.catalogue.rows import BRIDGE, CATALOGUE, HEADLINE, LEDGER, MIXING, PIPELINE, REUSE_BOUNDS, TIMING

__all__ = [
    "ABSENT",
    "ATTEMPT_KEY",
    "BRIDGE",
    "BY_NAME",
    "CATALOGUE",
    "HEADLINE",
    "HEADLINE_KEYS",
    "LEDGER",
    "LOWEST",
    "MAX_SUFFIX",
    "MAX_TEXT",
    "MIXING",
    "MOST_COUNTED",
    "NOTHING",
    "PARTIAL_KEY",
    "PIPELINE",
    "RANK_SUFFIX",
    "RESERVED_KEYS",
    "REUSE_BOUNDS",
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
