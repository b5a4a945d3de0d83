"""The catalogue as programs read it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from otel_train.catalogue.metric import Reduction
from otel_train.catalogue.names import MAX_SUFFIX, cluster_name
from otel_train.catalogue.rows import CATALOGUE


def catalogue_json() -> list[dict[str, Any]]:
    """Return one object for each row; a bound that is not there is null."""
    rows = []
    for metric in CATALOGUE:
        healthy = dataclasses.asdict(metric.healthy) if metric.healthy is not None else None
        if healthy is not None and math.isinf(healthy["high"]):
            healthy["high"] = None
        reduced = metric.reduction is not Reduction.LOCAL
        rows.append(
            {
                "name": metric.name,
                "cluster_name": cluster_name(metric.name) if reduced else None,
                "instrument": metric.instrument,
                "unit": metric.unit,
                "attributes": [metric.attribute] if metric.attribute else [],
                "reduction": metric.reduction,
                "wandb_keys": [key for key in (metric.wandb_key, _max_key(metric.wandb_key, metric.with_max)) if key],
                "description": metric.description,
                "healthy": healthy,
                "remedy": metric.remedy,
            }
        )
    return rows


def _max_key(key: str, with_max: bool) -> str:  # noqa: FBT001  # a field of a row, handed on
    return key + MAX_SUFFIX if with_max else ""
