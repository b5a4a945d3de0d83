"""Ask a Prometheus, or a store like it, what a panel of a dashboard asks."""

from __future__ import annotations

import re
import time
from typing import Any

from otel_train.render.dashboards import Query
from tests.support.prometheus import Prometheus

VARIABLES = {
    "$attempt": ".+",
    "$rank": ".+",
    "$__rate_interval": "1m",
    "$__interval": "15s",
    "$__range": "1h",
}


def answer(prometheus: Prometheus, query: Query, run_id: str) -> list[Any]:
    """Return the series that a panel's query has over the last half hour, with the dashboard's variables put in."""
    expression = query.expression.replace("$run", run_id)
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert not re.search(r"\$\w", expression), expression
    now = time.time()
    # VictoriaMetrics would leave the newest 30 s out, as it does for Grafana.
    asked: dict[str, str | float] = {"query": expression, "start": now - 1800, "end": now}
    result = prometheus.get("query_range", **asked, step="5s", latency_offset="1ms")["result"]
    return [series for series in result if any(value != "NaN" for _, value in series["values"])]
