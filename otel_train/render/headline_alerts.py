"""One alert for each judged metric that leaves its healthy range."""

from __future__ import annotations

import math

from otel_train.catalogue import (
    JUDGED,
    RANK_SUFFIX,
    HealthyRange,
    Instrument,
    Metric,
    Ranges,
    Reduction,
    rows,
)
from otel_train.render.alert import Alert, Severity
from otel_train.render.health_expressions import DIVISORS, WINDOW, bounded, figure, keys_of
from otel_train.render.promql import (
    ATTEMPT,
    HOST,
    OF_ATTEMPT,
    RANK,
    RUN,
    by,
    cluster_series,
    counted,
    over,
    rank_series,
)

_CRITICAL = (
    rows.PICKS,  # a rank trains on nothing, or nobody knows on what
    rows.MIX_DIVERGENCE,  # the model learns another mix than the configured one, and can't unlearn it
    rows.FALSE_EVICTIONS,  # streams go on from an empty state: the result is wrong, not late
)


def headline_alerts(health: Ranges) -> list[Alert]:
    """Return the alerts of the metrics that can be out of their range.

    Args:
        health: Gives the range of a headline key.
    """
    alerts = []
    for row in JUDGED:
        judged = [(key, healthy) for key in keys_of(row) if bounded(healthy := health(key))]
        if judged:
            alerts.append(_alert(row, judged))
    return alerts


def _alert(row: Metric, judged: list[tuple[str, HealthyRange]]) -> Alert:
    conditions = [condition for key, healthy in judged for condition in _outside(figure(key, healthy), healthy)]
    healthy = judged[0][1]
    value = " ".join(["{{ printf `%.3g` $value }}", DIVISORS[healthy.per]]).strip()
    return Alert(
        name="OtelTrain" + "".join(word.title() for word in row.name.replace(".", "_").split("_")) + "OutOfRange",
        group=row.name.partition(".")[0],
        metric=row.name,
        keys=tuple(key for key, _ in judged),
        # Two conditions of one attempt have the same labels, so that `or` keeps one of them.
        expression=by("max", OF_ATTEMPT, "\n    " + "\n  or\n    ".join(conditions) + "\n"),
        hold="2m",
        severity=Severity.CRITICAL if row in _CRITICAL else Severity.WARNING,
        summary=f"Run {{{{ $labels.{RUN} }}}}: {row.wandb_key} is {value}, healthy is {healthy}{_worst_rank(row)}.",
        description=f"{row.description} {row.remedy}",
    )


def _outside(value: str, healthy: HealthyRange) -> list[str]:
    high = [f"{value} > {healthy.high:.12g}"] if math.isfinite(healthy.high) else []
    return high + ([f"{value} < {healthy.low:.12g}"] if healthy.low > 0 else [])


def _worst_rank(row: Metric) -> str:
    """Return the part of a summary's template that names the rank with the largest value; empty where it is unknown."""
    attempt = f"{RUN}=%[1]q,{ATTEMPT}=%[2]q"  # a query may have its series several times
    if row.with_max and row.instrument is Instrument.COUNTER:
        # Over the whole window: the rank of the cluster's maximum is that of the last interval only.
        query = f"topk(1, {counted(f'{rank_series(row)}{{{attempt}}}', WINDOW)} > 0)"
        name = f"most on rank {{{{ . | first | label `{RANK}` }}}} ({{{{ . | first | label `{HOST}` }}}})"
    elif row.reduction is Reduction.MAX:
        query = over("last_over_time", f"{cluster_series(row, RANK_SUFFIX)}{{{attempt}}}", WINDOW)
        name = "on rank {{ . | first | value | printf `%.0f` }}"
    else:
        return ""
    return f"{{{{ with printf `{query}` $labels.{RUN} $labels.{ATTEMPT} | query }}}}, {name}{{{{ end }}}}"
