"""The dashboard "Step and pipeline": how fast does the job go, and do its values arrive?"""

from __future__ import annotations

from otel_train.catalogue import HealthyRange, Metric, external, rows
from otel_train.host_clock import LIMIT
from otel_train.render.dashboards.common_panels import ranks_panel
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
from otel_train.render.pipeline_alerts import BRIDGE_LAG_LIMIT, QUEUE_LIMIT
from otel_train.render.promql import ATTEMPT, HOST, OF_ATTEMPT, RANK, by, cluster_series, label_name, over, rank_series

_REASON = label_name(rows.POINTS_REFUSED.attribute)
_REFERENCE = label_name(rows.CLOCK_OFFSET.attribute)
_EXPORTER = f"{{{{{external.EXPORTER_LABEL}}}}}"


def step_and_pipeline() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        name="step-and-pipeline",
        title="otel_train: Step and pipeline",
        description="How fast does the job go, and do its values arrive?",
        sections=(
            Section(title="The step", panels=(_step(), _step_time(), _data_wait(), _ranks_reporting(), _age())),
            Section(title="From the ranks to the collector", panels=_sidecars()),
            Section(title="The collector", panels=_collector()),
            Section(title="The wandb bridge", panels=_bridge()),
            Section(
                title="Rank by rank",
                panels=(
                    ranks_panel("Step time of each rank", rows.STEP_DURATION, unit="s", width=12),
                    ranks_panel("Wait for data of each rank", rows.DATA_WAIT, unit="s", width=12),
                ),
            ),
        ),
    )


def _step() -> Panel:
    return Panel(
        title="Step",
        shows=(rows.STEP,),
        targets=(Target(expression=by("max", OF_ATTEMPT, rank_series(rows.STEP) + CLUSTER), legend="newest step"),),
        unit="none",
        width=6,
    )


def _mean_and_slowest(title: str, row: Metric) -> Panel:
    return Panel(
        title=title,
        shows=(row,),
        targets=(
            Target(expression=cluster_series(row) + CLUSTER, legend="mean of all ranks"),
            Target(
                expression=f"topk by ({ATTEMPT}) (1, {rank_series(row)}{RANKS})",
                legend=f"slowest: {BY_RANK}",
                dashed=True,
            ),
        ),
        unit="s",
        width=6,
    )


def _step_time() -> Panel:
    return _mean_and_slowest("Step time", rows.STEP_DURATION)


def _data_wait() -> Panel:
    return _mean_and_slowest("Wait for data", rows.DATA_WAIT)


def _ranks_reporting() -> Panel:
    # Steps may be longer than a minute; the sidecar tells of a rank's age every 10 s.
    steps, ages = (over("last_over_time", rank_series(row) + CLUSTER, "1m") for row in (rows.STEP, rows.STEP_AGE))
    heard = by("count", (*OF_ATTEMPT, RANK), f"{steps} or {ages}")
    return Panel(
        title="Ranks that report",
        shows=(rows.STEP, rows.RANKS),
        targets=(
            Target(expression=by("count", OF_ATTEMPT, heard), legend="heard in the last minute"),
            Target(expression=cluster_series(rows.RANKS) + CLUSTER, legend="reduced together", dashed=True),
        ),
        unit="none",
        note="A rank that is missing is named by its alert.",
        width=6,
    )


def _age() -> Panel:
    row = rows.STEP_AGE
    age = by("max", (RANK, HOST, row.attribute), over("last_over_time", rank_series(row) + RANKS, "1m"))
    return Panel(
        title="Time since the last step, by rank and phase",
        shows=(row,),
        targets=(Target(expression=f"topk({SHOWN_RANKS}, {age})", legend=f"{BY_RANK}, {{{{{row.attribute}}}}}"),),
        unit="s",
        note="A rank that hangs climbs; the phase says what it waits for. Of those that climb together, the one that "
        "waits for data or computes is what the others wait for.",
        width=24,
    )


def _sidecars() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Export lag",
            shows=(rows.EXPORT_LAG,),
            targets=(
                Target(expression=by("max", (HOST,), rank_series(rows.EXPORT_LAG) + RANKS), legend=f"{{{{{HOST}}}}}"),
            ),
            unit="s",
        ),
        Panel(
            title="Clocks that are off",
            shows=(rows.CLOCK_OFFSET,),
            targets=(Target(expression=_offsets(), legend=f"{BY_RANK}, against {{{{{_REFERENCE}}}}}"),),
            unit="s",
            note=f"Beyond {LIMIT:g} s, which is an alert; empty while all clocks are right.",
        ),
        _lost("Records dropped", rows.RECORDS_DROPPED, (HOST,), f"{{{{{HOST}}}}}"),
        _lost("Points refused", rows.POINTS_REFUSED, (HOST, _REASON), f"{{{{{HOST}}}}}, {{{{{_REASON}}}}}"),
        _lost("Reductions abandoned", rows.REDUCTIONS_ABANDONED, (RANK,), BY_RANK),
    )


def _offsets() -> str:
    own = by(
        "max", (ATTEMPT, RANK, HOST, _REFERENCE), over("last_over_time", rank_series(rows.CLOCK_OFFSET) + RANKS, "2m")
    )
    return f"topk({SHOWN_RANKS}, {own} > {LIMIT:g} or {own} < -{LIMIT:g})"


def _lost(title: str, row: Metric, labels: tuple[str, ...], legend: str) -> Panel:
    sums = by("sum", (ATTEMPT, *labels), rank_series(row) + RANKS)
    return Panel(
        title=title,
        shows=(row,),
        targets=(Target(expression=f"topk({SHOWN_RANKS}, {sums})", legend=legend),),
        unit="none",
        note="Since the attempt began; any growth is an alert.",
    )


def _collector() -> tuple[Panel, ...]:
    queue, capacity = external.QUEUE_SIZE, external.QUEUE_CAPACITY
    labels = (external.EXPORTER_LABEL,)
    return (
        Panel(
            title="Queues of the collector",
            shows=(queue, capacity),
            targets=(Target(expression=by("max", labels, f"{queue.name} / {capacity.name}"), legend=_EXPORTER),),
            unit="percentunit",
            healthy=HealthyRange(high=QUEUE_LIMIT),
            width=6,
        ),
        Panel(
            title="Data points sent a second",
            shows=(external.SENT,),
            targets=(
                Target(expression=by("sum", labels, over("rate", external.SENT.name, RATE)), legend=f"to {_EXPORTER}"),
            ),
            unit="short",
            width=6,
        ),
        Panel(
            title="Data points given up or refused",
            shows=(external.SEND_FAILED, external.REFUSED_ALONE, external.REFUSED),
            targets=(
                Target(
                    expression=by("sum", labels, over("increase", external.SEND_FAILED.name, WINDOW)),
                    legend=f"given up, to {_EXPORTER}",
                ),
                Target(
                    expression=by(
                        "sum", (external.REASON_LABEL,), over("increase", external.REFUSED_ALONE.name, WINDOW)
                    ),
                    legend=f"refused alone, {{{{{external.REASON_LABEL}}}}}",
                ),
                Target(
                    expression=f"sum({over('increase', external.REFUSED.name, WINDOW)})", legend="refused, sent again"
                ),
            ),
            unit="short",
            note=f"In {WINDOW}. Empty until something was given up for the first time.",
            width=6,
        ),
        Panel(
            title="The collector's uptime",
            shows=(external.UPTIME,),
            targets=(Target(expression=f"min({external.UPTIME.name})", legend="youngest"),),
            unit="s",
            kind=Kind.NUMBER,
            width=6,
        ),
    )


_NOT_TAKEN = (
    (rows.BRIDGE_DUPLICATES, "points that it has already"),
    (rows.BRIDGE_LATE_POINTS, "points that came too late"),
    (rows.BRIDGE_REFUSED_POINTS, "points that break a rule"),
    (rows.BRIDGE_REFUSED_REQUESTS, "requests to be sent again"),
)


def _bridge() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Rows a second",
            shows=(rows.BRIDGE_ROWS, rows.BRIDGE_PARTIAL_ROWS),
            targets=(
                Target(expression=f"sum({over('rate', rank_series(rows.BRIDGE_ROWS), RATE)})", legend="rows"),
                Target(
                    expression=f"sum({over('rate', rank_series(rows.BRIDGE_PARTIAL_ROWS), RATE)})",
                    legend="of these, with points missing",
                    dashed=True,
                ),
            ),
            unit="short",
        ),
        Panel(
            title="Lag of the bridge",
            shows=(rows.BRIDGE_LAG,),
            targets=(
                Target(
                    expression=by("max", ("job",), over("last_over_time", rank_series(rows.BRIDGE_LAG), "1m")),
                    legend="{{job}}",
                ),
            ),
            unit="s",
            healthy=HealthyRange(high=BRIDGE_LAG_LIMIT),
        ),
        Panel(
            title="Steps that wait in the bridge",
            shows=(rows.BRIDGE_WAITING,),
            targets=(
                Target(
                    expression=by("max", ("job",), over("last_over_time", rank_series(rows.BRIDGE_WAITING), "1m")),
                    legend="{{job}}",
                ),
            ),
            unit="none",
        ),
        Panel(
            title="The bridge's inbox on its disk",
            shows=(rows.BRIDGE_INBOX_SIZE,),
            targets=(
                Target(
                    expression=by("max", ("job",), over("last_over_time", rank_series(rows.BRIDGE_INBOX_SIZE), "1m")),
                    legend="{{job}}",
                ),
            ),
            unit="bytes",
        ),
        Panel(
            title="What the bridge does not take, a second",
            shows=tuple(row for row, _ in _NOT_TAKEN),
            targets=tuple(
                Target(expression=f"sum({over('rate', rank_series(row), RATE)})", legend=legend)
                for row, legend in _NOT_TAKEN
            ),
            unit="short",
        ),
    )
