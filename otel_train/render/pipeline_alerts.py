"""The alerts about the way itself: a silent rank, lost records, a bridge or a collector that does not keep up."""

from __future__ import annotations

from otel_train.catalogue import external, rows
from otel_train.render.alert import Alert, Severity
from otel_train.render.figures import WINDOW
from otel_train.render.promql import HOST, OF_ATTEMPT, OF_RANK, RANK, RUN, by, growth, over, rank_series

GROUP = "pipeline"
BRIDGE_LAG_LIMIT = 60.0
"""Seconds; the bridge itself waits 30 s for the missing points of a step."""
QUEUE_LIMIT = 0.5
"""Part of a queue's capacity: there is as much time left as it took to come here."""

_RUN = f"Run {{{{ $labels.{RUN} }}}}"
_EXPORTER_LABELS = ("job", "instance", external.EXPORTER_LABEL)
_EXPORTER = f"{{{{ $labels.{external.EXPORTER_LABEL} }}}}"
_COUNT = "{{ printf `%.0f` $value }}"


def pipeline_alerts() -> list[Alert]:
    """Return the alerts."""
    return [
        _rank_silent(),
        _ranks_out_of_step(),
        _records_dropped(),
        _bridge_behind(),
        _bridge_silent(),
        _bridge_loses(),
        _queue_filling(),
        _collector_drops(),
    ]


def _rank_silent() -> Alert:
    step = rank_series(rows.STEP)
    known = by("max", OF_RANK, over("last_over_time", step, "1h"))
    heard = by("max", OF_RANK, over("last_over_time", step, "2m"))
    running = by("max", OF_ATTEMPT, over("last_over_time", step, "1m"))
    return Alert(
        name="OtelTrainRankSilent",
        group=GROUP,
        metric=rows.STEP.name,
        # A job that has ended, or whose steps are that long, is silent on all of its ranks.
        expression=f"  {known}\nunless\n  {heard}\nand on ({', '.join(OF_ATTEMPT)})\n  {running}\n",
        hold="1m",
        # The job hangs in its next collective, or goes on without the rank's data.
        severity=Severity.CRITICAL,
        summary=f"{_RUN}: rank {{{{ $labels.{RANK} }}}} on {{{{ $labels.{HOST} }}}} is silent since its step {_COUNT}, "
        "while other ranks go on.",
        description=f"{rows.STEP.description} This rank has sent none for two minutes. Look whether its process and "
        "its node's sidecar live.",
    )


def _ranks_out_of_step() -> Alert:
    row = rows.REDUCTIONS_ABANDONED
    return Alert(
        name="OtelTrainRanksOutOfStep",
        group=GROUP,
        metric=row.name,
        expression=by("sum", OF_ATTEMPT, f"\n  {growth(rank_series(row), WINDOW)}\n"),
        hold="0s",
        # Training itself goes on; a rank that has really died is a silent one too.
        severity=Severity.WARNING,
        summary=f"{_RUN}: ranks have abandoned {_COUNT} reductions in {WINDOW}; cluster-wide values are missing.",
        description=f"{row.description} {row.remedy}",
    )


def _records_dropped() -> Alert:
    row = rows.RECORDS_DROPPED
    return Alert(
        name="OtelTrainRecordsDropped",
        group=GROUP,
        metric=row.name,
        expression=by("sum", (*OF_ATTEMPT, HOST), f"\n  {growth(rank_series(row), WINDOW)}\n"),
        hold="0s",
        severity=Severity.WARNING,  # training does not notice
        summary=f"{_RUN}: {_COUNT} records were lost in {WINDOW} on {{{{ $labels.{HOST} }}}}.",
        description=f"{row.description} {row.remedy}",
    )


def _bridge_behind() -> Alert:
    row = rows.BRIDGE_LAG
    # A bridge that was started again has a new instance: what the old one said last must not outlive it.
    lag = by("max", ("job",), over("last_over_time", rank_series(row), "1m"))
    return Alert(
        name="OtelTrainBridgeBehind",
        group=GROUP,
        metric=row.name,
        expression=f"{lag} > {BRIDGE_LAG_LIMIT:g}",
        hold="2m",
        severity=Severity.WARNING,  # its inbox is on disk: rows come late, none is lost
        summary="The wandb bridge {{ $labels.job }} is {{ $value | humanizeDuration }} behind.",
        description=f"{row.description} {row.remedy}",
    )


def _bridge_silent() -> Alert:
    row = rows.BRIDGE_ROWS
    known, heard = (by("max", ("job",), over("last_over_time", rank_series(row), window)) for window in ("1h", "2m"))
    running = over("last_over_time", rank_series(rows.STEP), "1m")
    return Alert(
        name="OtelTrainBridgeSilent",
        group=GROUP,
        metric=row.name,
        # Steps that come in show that the way to Prometheus is open, and that there is something to bridge.
        expression=f"  {known}\nunless\n  {heard}\nand on ()\n  {running}\n",
        hold="2m",
        severity=Severity.WARNING,  # the collector keeps what the bridge does not take
        summary=f"The wandb bridge {{{{ $labels.job }}}} is silent since its row {_COUNT}, while jobs go on.",
        description=f"{row.description} It has said nothing for two minutes. Look whether its process lives, and at "
        "its log.",
    )


def _bridge_loses() -> Alert:
    late, refused = rows.BRIDGE_LATE_POINTS, rows.BRIDGE_REFUSED_POINTS
    lost = (f"\n  {growth(rank_series(row), WINDOW)}\n" for row in (late, refused))
    late_sum, refused_sum = (by("sum", ("job",), expression) for expression in lost)
    return Alert(
        name="OtelTrainBridgeLosesPoints",
        group=GROUP,
        metric=refused.name,
        expression=f"{late_sum} or {refused_sum}",
        hold="0s",
        severity=Severity.WARNING,  # their rows are in wandb, marked as partial
        summary=f"The wandb bridge {{{{ $labels.job }}}} has lost {_COUNT} points in {WINDOW}.",
        description=f"{refused.description} {refused.remedy} Or: {late.description} {late.remedy}",
    )


def _queue_filling() -> Alert:
    row = external.QUEUE_SIZE
    return Alert(
        name="OtelTrainCollectorQueueFilling",
        group=GROUP,
        metric=row.name,
        expression=by("max", _EXPORTER_LABELS, f"{row.name} / {external.QUEUE_CAPACITY.name} > {QUEUE_LIMIT:g}"),
        hold="2m",
        severity=Severity.WARNING,  # nothing is lost yet
        summary=f"The collector's queue to {_EXPORTER} is {{{{ $value | humanizePercentage }}}} full.",
        description=f"{row.description} {row.remedy}",
    )


def _collector_drops() -> Alert:
    row = external.SEND_FAILED
    labels = (*_EXPORTER_LABELS, external.ERROR_LABEL)
    return Alert(
        name="OtelTrainCollectorDropsData",
        group=GROUP,
        metric=row.name,
        expression=by("sum", labels, f"\n  {growth(row.name, WINDOW)}\n"),
        hold="0s",
        severity=Severity.WARNING,  # gone for good, but training does not notice
        summary=f"The collector gave up on {_COUNT} data points to {_EXPORTER} in {WINDOW} "
        f"({{{{ $labels.{external.ERROR_LABEL} }}}}).",
        description=f"{row.description} {row.remedy}",
    )
