"""The dashboard "Ledger": is state thrown away that is needed again, on which rank, and how much room is missing?"""

from __future__ import annotations

from otel_train.catalogue import Metric, Ranges, rows
from otel_train.render.dashboards.common_panels import headline_panel, named_rank_panel, ranks_panel, worst_ranks_panel
from otel_train.render.dashboards.spec import (
    BY_RANK,
    CLUSTER,
    RANKS,
    RATE,
    SHOWN_RANKS,
    Dashboard,
    Kind,
    Panel,
    Section,
    Target,
)
from otel_train.render.health_expressions import WINDOW
from otel_train.render.promql import by, cluster_series, counted, rank_series


def ledger(health: Ranges) -> Dashboard:
    """Return the dashboard, its thresholds from the given ranges."""
    return Dashboard(
        name="ledger",
        title="otel_train: Ledger",
        description="Is state thrown away that is needed again, on which rank, and how much room is missing?",
        sections=(
            Section(
                title="What is lost",
                panels=(
                    headline_panel("Evictions a pick", rows.EVICTIONS, health, width=6),
                    headline_panel("False evictions a pick", rows.FALSE_EVICTIONS, health, width=6),
                    headline_panel("Stale evictions a pick", rows.STALE_EVICTIONS, health, width=6),
                    headline_panel("Fresh writes a pick", rows.FRESH_WRITES, health, width=6),
                ),
            ),
            Section(
                title="Who loses it",
                panels=(
                    _false_share(),
                    worst_ranks_panel("False evictions of the worst owners", rows.FALSE_EVICTIONS),
                    named_rank_panel("The owner with the most evictions", rows.EVICTIONS),
                ),
            ),
            Section(
                title="How much room is missing", panels=(_reuse_distance(), _advised_capacity(), _fill(), _rank_fill())
            ),
            Section(
                title="Rank by rank",
                panels=(
                    ranks_panel("Evictions of each owner", rows.EVICTIONS),
                    ranks_panel("Fresh writes of each owner", rows.FRESH_WRITES),
                    _hits(),
                ),
            ),
        ),
    )


def _counted(row: Metric) -> str:
    return counted(cluster_series(row) + CLUSTER, WINDOW)


def _false_share() -> Panel:
    return Panel(
        title="False evictions' share of fresh writes",
        shows=(rows.FALSE_EVICTIONS, rows.FRESH_WRITES),
        targets=(
            Target(
                expression=f"{_counted(rows.FALSE_EVICTIONS)} / {_counted(rows.FRESH_WRITES)}",
                legend=f"share in {WINDOW}",
            ),
        ),
        unit="percentunit",
        note="Near 1 every new entry is one that was thrown away before. Empty while nothing is written fresh.",
    )


def _hits() -> Panel:
    return Panel(
        title="Hits a pick",
        shows=(rows.LEDGER_HITS,),
        targets=(
            Target(
                expression=f"{_counted(rows.LEDGER_HITS)} / {_counted(rows.PICKS)}",
                legend=f"in {WINDOW}",
            ),
        ),
        unit="short",
        note="Where each pick fetches its stream's state once, 1 is the best.",
    )


def _fill() -> Panel:
    entries, capacity = (cluster_series(row) + CLUSTER for row in (rows.LEDGER_ENTRIES, rows.LEDGER_CAPACITY))
    return Panel(
        title="Fill of all shards",
        shows=(rows.LEDGER_ENTRIES, rows.LEDGER_CAPACITY),
        targets=(Target(expression=f"{entries} / {capacity}", legend="entries / capacity"),),
        unit="percentunit",
        note="A full ledger is not a fault in itself; false evictions are.",
    )


def _rank_fill() -> Panel:
    entries, capacity = (rank_series(row) + RANKS for row in (rows.LEDGER_ENTRIES, rows.LEDGER_CAPACITY))
    return Panel(
        title="Fill of each shard",
        shows=(rows.LEDGER_ENTRIES, rows.LEDGER_CAPACITY),
        targets=(Target(expression=f"topk({SHOWN_RANKS}, {entries} / {capacity})", legend=BY_RANK),),
        unit="percentunit",
        note=f"Of the chosen ranks the {SHOWN_RANKS} fullest.",
    )


def _reuse_distance() -> Panel:
    buckets = cluster_series(rows.REUSE_DISTANCE) + CLUSTER
    return Panel(
        title="Reuse distance of false evictions",
        shows=(rows.REUSE_DISTANCE,),
        targets=(Target(expression=by("sum", ("le",), counted(buckets, RATE)), legend="{{le}}"),),
        unit="short",
        note="Upwards how many entries were missing, the colour how often. Empty rows are good.",
        kind=Kind.HEATMAP,
        width=16,
    )


def _advised_capacity() -> Panel:
    capacity, ranks = (cluster_series(row) + CLUSTER for row in (rows.LEDGER_CAPACITY, rows.RANKS))
    a_rank = f"{capacity} / {ranks}"
    missing = f"histogram_quantile(0.9, {counted(cluster_series(rows.REUSE_DISTANCE) + CLUSTER, '$__range')})"
    return Panel(
        title="Advised capacity a rank",
        shows=(rows.LEDGER_CAPACITY, rows.REUSE_DISTANCE),
        targets=(
            # The quantile is NaN where no eviction was false: then the capacity is enough as it is.
            Target(expression=f"{a_rank} + ({missing} >= 0) or {a_rank}", legend="advised"),
            Target(expression=a_rank, legend="configured", dashed=True),
        ),
        unit="short",
        note="Capacity with which nine of ten false evictions in the shown time would have been hits: the configured "
        "one and the 0.9 quantile of the reuse distance. " + rows.FALSE_EVICTIONS.remedy,
    )
