"""The panels that several dashboards have: a headline metric's figure, the worst ranks, the rank that is named."""

from __future__ import annotations

from otel_train.catalogue import (
    MAX_SUFFIX,
    RANK_SUFFIX,
    HealthyRange,
    Instrument,
    Metric,
    Ranges,
    Statistic,
    rows,
)
from otel_train.render.dashboards.spec import BY_RANK, CLUSTER, RANKS, RATE, SHOWN_RANKS, Kind, Panel, Target
from otel_train.render.health_expressions import DIVISORS, WINDOW, bounded, divided, figure, keys_of
from otel_train.render.promql import HOST, OF_ATTEMPT, RANK, by, cluster_series, counted, pace, rank_series

_STATISTICS = {Statistic.MEAN: "mean", Statistic.MAX: "largest", Statistic.LAST: "last"}


def headline_panel(title: str, row: Metric, health: Ranges, *, unit: str = "short", width: int = 8) -> Panel:
    """Return a headline metric's panel: the figure that its alert judges, with its range.

    Args:
        title: The panel's title.
        row: The metric.
        health: Gives the range of a headline key.
        unit: Grafana's name of the figure's unit.
        width: In columns of 24.
    """
    key, *others = keys_of(row)
    healthy = health(key)
    divisor = DIVISORS[healthy.per]
    name = f"{_STATISTICS[healthy.statistic]} of {WINDOW}{divisor and f', {divisor}'}"
    targets = [Target(expression=figure(key, healthy, CLUSTER), legend=name)]
    targets += [
        Target(expression=figure(other, own, CLUSTER), legend=f"the worst rank, {name}")
        for other in others
        if bounded(own := health(other)) and own == healthy  # else the area would be wrong for it
    ]
    if row.instrument is Instrument.GAUGE:
        targets.append(Target(expression=_now(row, healthy), legend="this interval", dashed=True))
    return Panel(
        title=title,
        shows=(row,),
        targets=tuple(targets),
        unit=unit,
        note=f"Healthy: {healthy}. The alert judges the {name}.",
        healthy=healthy,
        width=width,
    )


def _now(row: Metric, healthy: HealthyRange) -> str:
    value, ranks = (cluster_series(metric) + CLUSTER for metric in (row, rows.RANKS))
    return divided(value, healthy.per, ranks, CLUSTER)


def named_rank_panel(title: str, row: Metric, *, width: int = 8) -> Panel:
    """Return a panel of a metric's maximum in each interval, as one series for each rank that had it."""
    suffix = MAX_SUFFIX if row.with_max else ""
    value, rank = (f"{cluster_series(row, suffix + end)}{CLUSTER}" for end in ("", RANK_SUFFIX))
    # The rank is the value of one series and becomes the label of another.
    named = f'count_values by ({", ".join(OF_ATTEMPT)}) ("worst_rank", {rank})'
    return Panel(
        title=title,
        shows=(row,),
        targets=(
            Target(
                expression=f"{named} * on ({', '.join(OF_ATTEMPT)}) group_left () {value}", legend="rank {{worst_rank}}"
            ),
        ),
        unit="short",
        note="One interval's largest value; the colour names the rank that had it.",
        kind=Kind.POINTS,
        width=width,
    )


def ranks_panel(title: str, row: Metric, *, unit: str = "short", lowest: bool = False, width: int = 8) -> Panel:
    """Return a panel of the chosen ranks' own values, the extreme ones if they are many."""
    series = rank_series(row) + RANKS
    counter = row.instrument is Instrument.COUNTER
    # Windows hold more values of one rank than of another, so that counts in them differ where rates don't.
    value = pace(series, RATE) if counter else series
    order, word = ("bottomk", "lowest") if lowest else ("topk", "highest")
    return Panel(
        title=title,
        shows=(row,),
        targets=(Target(expression=f"{order}({SHOWN_RANKS}, {value})", legend=BY_RANK),),
        unit=unit,
        note=f"{'A second. ' if counter else ''}Of the chosen ranks the {SHOWN_RANKS} {word}; "
        "a rank reports every 10 s.",
        width=width,
    )


def worst_ranks_panel(title: str, row: Metric, *, width: int = 8) -> Panel:
    """Return a panel of the ranks that have most of a counter in the shown time."""
    sums = by("sum", (RANK, HOST), counted(rank_series(row) + RANKS, "$__range"))
    return Panel(
        title=title,
        shows=(row,),
        targets=(Target(expression=f"topk(8, {sums})", legend=f"{BY_RANK} on {{{{{HOST}}}}}"),),
        unit="short",
        note="In the shown time; of the chosen ranks the 8 highest.",
        kind=Kind.BARS,
        width=width,
    )


def cluster_panel(
    title: str, row: Metric, *, unit: str = "short", legend: str = "cluster", width: int = 8, note: str = ""
) -> Panel:
    """Return a panel of a cluster-wide value: a counter's increase a second, a gauge's value."""
    series = cluster_series(row) + CLUSTER
    value = pace(series, RATE) if row.instrument is Instrument.COUNTER else series
    return Panel(
        title=title,
        shows=(row,),
        targets=(Target(expression=value, legend=legend),),
        unit=unit,
        note=note,
        width=width,
    )
