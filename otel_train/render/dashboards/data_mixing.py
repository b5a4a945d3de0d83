"""The dashboard "Data mixing": is the data mixed as configured, and does a stream starve?"""

from __future__ import annotations

from otel_train.catalogue import BY_SOURCE, Ranges, external, rows
from otel_train.render.dashboards.common_panels import cluster_panel, headline_panel, named_rank_panel, ranks_panel
from otel_train.render.dashboards.spec import CLUSTER, RATE, Dashboard, Kind, Panel, Section, Target
from otel_train.render.health_expressions import WINDOW
from otel_train.render.promql import ATTEMPT, by, cluster_series, over, pace


def data_mixing(health: Ranges) -> Dashboard:
    """Return the dashboard, its thresholds from the given ranges."""
    return Dashboard(
        name="data-mixing",
        title="otel_train: Data mixing",
        description="Is the data mixed as configured, does a stream starve, and on which rank?",
        sections=(
            Section(title="The mix", panels=(_shares(), _distance(), *_mix(health), _losses())),
            Section(
                title="The readers",
                panels=(
                    headline_panel("Largest age of a reader", rows.STALENESS_MAX, health),
                    named_rank_panel("The rank that has the largest age", rows.STALENESS_MAX),
                    headline_panel("Mean age of the readers", rows.STALENESS_MEAN, health),
                    cluster_panel("Starved readers", rows.STARVED_READERS),
                    headline_panel("Active readers a rank", rows.ACTIVE_READERS, health),
                    headline_panel("Restarts a pick", rows.RESTARTS, health),
                    headline_panel("Picks a step and rank", rows.PICKS, health),
                ),
            ),
            Section(
                title="Rank by rank",
                panels=(
                    ranks_panel("Largest age on each rank", rows.STALENESS_MAX, width=12),
                    ranks_panel("Picks of each rank", rows.PICKS, lowest=True, width=12),
                ),
            ),
        ),
    )


def _mix(health: Ranges) -> tuple[Panel, ...]:
    return (
        headline_panel("Mix divergence", rows.MIX_DIVERGENCE, health, unit="none"),
        headline_panel("Switch rate", rows.SWITCH_RATE, health, unit="percentunit"),
        headline_panel("Repeated samples", rows.REPEATS, health, unit="percentunit"),
        _tokens(),
    )


def _shares() -> Panel:
    label = rows.MODALITY_SHARE.attribute
    share, target = (
        by("max", (ATTEMPT, label), cluster_series(row) + CLUSTER)
        for row in (rows.MODALITY_SHARE, rows.MODALITY_TARGET)
    )
    return Panel(
        title="Realised and target shares",
        shows=(rows.MODALITY_SHARE, rows.MODALITY_TARGET),
        targets=(
            Target(expression=share, legend=f"{{{{{label}}}}}"),
            Target(expression=target, legend=f"{{{{{label}}}}}, target", dashed=True),
        ),
        unit="percentunit",
        note=rows.MIX_DIVERGENCE.remedy,
        width=16,
    )


def _distance() -> Panel:
    label = rows.MODALITY_SHARE.attribute
    share, target = (
        over("last_over_time", cluster_series(row) + CLUSTER, WINDOW)
        for row in (rows.MODALITY_SHARE, rows.MODALITY_TARGET)
    )
    # An attempt that has just ended still has a value: only that attempt is shown whose value is the newest.
    times = f"timestamp({cluster_series(rows.MODALITY_SHARE)}{CLUSTER})"
    newest = f"topk by ({label}) (1, {times} or {over('max_over_time', times, f'{WINDOW}:15s')})"
    return Panel(
        title="Realised less target share, now",
        shows=(rows.MODALITY_SHARE, rows.MODALITY_TARGET),
        targets=(
            Target(expression=by("max", (label,), f"{share} - {target} and {newest}"), legend=f"{{{{{label}}}}}"),
        ),
        unit="percentunit",
        note="Below zero a modality is seen less than it should be.",
        kind=Kind.BARS,
    )


def _tokens() -> Panel:
    label = rows.TOKENS.attribute
    rate = by("sum", (label,), pace(cluster_series(rows.TOKENS) + CLUSTER, RATE))
    return Panel(
        title="Tokens a second by modality",
        shows=(rows.TOKENS,),
        targets=(Target(expression=rate, legend=f"{{{{{label}}}}}"),),
        unit="short",
    )


def _losses() -> Panel:
    loss = external.LOSS.name + CLUSTER.removesuffix("}")
    return Panel(
        title="Loss by source",
        shows=(external.LOSS,),
        targets=(
            Target(
                expression=by("max", (ATTEMPT, BY_SOURCE), f'{loss},{BY_SOURCE}!=""}}'),
                legend=f"{{{{{BY_SOURCE}}}}}",
            ),
            Target(expression=by("max", (ATTEMPT,), f'{loss},{BY_SOURCE}=""}}'), legend="all rows", dashed=True),
        ),
        unit="none",
        note='Empty unless the job declares otel_train.Scalar("train/loss", by="modality").',
        width=16,
    )
