"""What otel_train measures: facts only, standard library only."""

from otel_train.catalogue import rows
from otel_train.catalogue.layout import ABSENT, LOWEST, Layout, Series, Value, divergence, measures_of
from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction, Statistic
from otel_train.catalogue.names import (
    BY_NAME,
    HEADLINE_KEYS,
    MAX_SUFFIX,
    MAX_TEXT,
    RANK_SUFFIX,
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
    "PIPELINE",
    "RANK_SUFFIX",
    "REUSE_BOUNDS",
    "TIMING",
    "HealthyRange",
    "Instrument",
    "Layout",
    "Measure",
    "Metric",
    "Per",
    "Phase",
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
