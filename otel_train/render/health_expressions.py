"""The figure that a healthy range judges, as PromQL over the last minutes: alerts compare it, panels draw it.

It is what `otel_train.diagnose.judgement` computes of a whole run, with two differences: it is about a window, and a
counter is taken per step, not per log step. All cluster-wide series of an attempt have the same labels (they are rank
0's), so that they match one to one.
"""

from __future__ import annotations

from otel_train.catalogue import (
    JUDGED_KEYS,
    MAX_SUFFIX,
    HealthyRange,
    Instrument,
    Metric,
    Per,
    Statistic,
    headline_row,
    rows,
)
from otel_train.exceptions import ConfigurationError
from otel_train.render.promql import cluster_series, counted, over, rank_series, risen

WINDOW = "10m"
DIVISORS = {Per.CLUSTER: "", Per.RANK: "per rank", Per.PICK: "per pick"}
"""Text of a figure's divisor."""
_STATISTICS = {
    Statistic.MEAN: "avg_over_time",
    Statistic.MAX: "max_over_time",
    Statistic.LAST: "last_over_time",
}


def keys_of(row: Metric) -> tuple[str, ...]:
    """Return the judged keys of a row."""
    return tuple(key for key in JUDGED_KEYS if headline_row(key) == row)


def bounded(healthy: HealthyRange) -> bool:
    """Tell whether any value can be out of a range (no value is below 0)."""
    return healthy.low > 0 or healthy.high < float("inf")


def figure(key: str, healthy: HealthyRange, matchers: str = "") -> str:
    """Return the expression of a headline key's figure over `WINDOW`, divided as its range says.

    Args:
        key: A headline key; that of a maximum is taken as if every rank were like the worst, as the verdict does.
        healthy: Its range, with the statistic and the divisor.
        matchers: Label matchers in braces, for every series of the expression.

    Raises:
        ConfigurationError: The range judges a counter's largest or last value, which increases don't tell.
    """
    row = headline_row(key)
    ranks = over("last_over_time", cluster_series(rows.RANKS) + matchers, WINDOW)
    if row.instrument is not Instrument.COUNTER:
        value = over(_STATISTICS[healthy.statistic], cluster_series(row) + matchers, WINDOW)
        return divided(value, healthy.per, ranks, matchers)
    if healthy.statistic is not Statistic.MEAN:
        raise ConfigurationError(
            f"health.{key}: alerts judge a counter by its mean, got {healthy.statistic}; set statistic to mean"
        )
    # What is divided by steps can't begin with the attempt: the step before its first one is unknown.
    growth, picks = counted if healthy.per is Per.PICK else risen, cluster_series(rows.PICKS) + matchers
    if key == row.wandb_key + MAX_SUFFIX:
        # A mean and a number of changes: samples that are stored twice would change a sum.
        largest = over("avg_over_time", cluster_series(row, MAX_SUFFIX) + matchers, WINDOW)
        count = f"{largest} * ({over('changes', picks, WINDOW)} + 1) * {ranks}"
        if growth is risen:
            count += f" * {risen(picks, WINDOW)} / {counted(picks, WINDOW)}"
    else:
        count = growth(cluster_series(row) + matchers, WINDOW)
    if healthy.per is Per.PICK:
        return f"{count} / {counted(picks, WINDOW)}"
    # A fixed batch gives exactly a bound such as 4; the quotient of extrapolated numbers is a rounding error off it.
    steps = risen(rank_series(rows.STEP) + matchers, WINDOW)
    per_step = f"{count} / {steps}" if healthy.per is Per.CLUSTER else f"{count} / {steps} / {ranks}"
    return f"round({per_step}, 0.000001)"


def divided(value: str, per: Per, ranks: str, matchers: str = "") -> str:
    """Return a gauge's expression divided as a range says.

    Args:
        value: The gauge.
        per: Its range's divisor.
        ranks: Expression of the number of ranks.
        matchers: Label matchers in braces, for the picks and steps.
    """
    picks, steps = (risen(series + matchers, WINDOW) for series in (cluster_series(rows.PICKS), rank_series(rows.STEP)))
    return {Per.CLUSTER: value, Per.RANK: f"{value} / {ranks}", Per.PICK: f"{value} / ({picks} / {steps})"}[per]
