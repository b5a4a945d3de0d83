"""The alerts about the way itself: a silent rank, lost records, a bridge or a collector that does not keep up."""

from __future__ import annotations

from otel_train.catalogue import Phase, external, rows
from otel_train.render.alert import Alert, Severity
from otel_train.render.figures import WINDOW
from otel_train.render.promql import HOST, OF_ATTEMPT, OF_RANK, RANK, RUN, by, growth, over, rank_series

GROUP = "pipeline"
BRIDGE_LAG_LIMIT = 60.0
"""Seconds; the bridge itself waits 30 s for the missing points of a step."""
HANG_LIMIT = 60.0
"""Seconds without a step below which nothing is said to hang ..."""
HANG_TIMES = 3.0
"""... and how many times the longest mean step of six hours it must be: a checkpoint is no hang."""
STRAGGLE_PART = 0.25
"""Of the mean step, by which a rank is slower than the median one."""
QUEUE_LIMIT = 0.5
"""Part of a queue's capacity: there is as much time left as it took to come here."""

_DATA, _COMPUTE = (phase.name.lower() for phase in (Phase.DATA, Phase.COMPUTE))
_RUN = f"Run {{{{ $labels.{RUN} }}}}"
_EXPORTER_LABELS = ("job", "instance", external.EXPORTER_LABEL)
_EXPORTER = f"{{{{ $labels.{external.EXPORTER_LABEL} }}}}"
_COUNT = "{{ printf `%.0f` $value }}"


def pipeline_alerts() -> list[Alert]:
    """Return the alerts."""
    return [
        _rank_silent(),
        _job_hangs(),
        _rank_straggles(),
        _ranks_out_of_step(),
        _records_dropped(),
        _points_refused(),
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


def _job_hangs() -> Alert:
    """Name the rank that is waited for: at the oldest step and, of those at one step, waiting for its data."""
    row = rows.STEP_AGE
    of_rank, on_rank = (*OF_RANK, row.attribute), f"on ({', '.join(OF_RANK)})"
    longest = by("max", OF_RANK, over("max_over_time", rank_series(rows.STEP_DURATION), "6h"))
    step = by("max", OF_RANK, over("max_over_time", rank_series(rows.STEP), "6h"))
    conditions = []
    for place, matcher in enumerate((f'="{_DATA}"', f'="{_COMPUTE}"', f'!~"{_DATA}|{_COMPUTE}"')):
        age = by("max", of_rank, over("last_over_time", f"{rank_series(row)}{{{row.attribute}{matcher}}}", "1m"))
        limit = f"clamp_min({HANG_TIMES:g} * {longest}, {HANG_LIMIT:g})"
        # The age has done its work: what is left is the step, and a little more the later the phase comes in it.
        stuck = f"0 * ({age} > {on_rank} group_left () {limit})"
        conditions.append(f"    {stuck}\n    + {on_rank} group_left () {step} + {place / 10:g}\n")
    return Alert(
        name="OtelTrainJobHangs",
        group=GROUP,
        metric=row.name,
        expression=f"bottomk by ({', '.join(OF_ATTEMPT)}) (1,\n" + "  or\n".join(conditions) + ")\n",
        hold="0s",  # the age itself is how long it has lasted
        severity=Severity.CRITICAL,  # every rank waits for this one
        summary=f"{_RUN} hangs: rank {{{{ $labels.{RANK} }}}} on {{{{ $labels.{HOST} }}}} has ended no step since "
        f"{_COUNT} and is in phase {{{{ $labels.{row.attribute} }}}}.",
        description=f"{row.description} No rank is further behind. {row.remedy}",
    )


def _rank_straggles() -> Alert:
    row, attempt = rows.DATA_WAIT, f"on ({', '.join(OF_ATTEMPT)}) group_left ()"
    usual = by("avg", OF_ATTEMPT, over("avg_over_time", rank_series(rows.STEP_DURATION), WINDOW))
    conditions = []
    for each in (rows.DATA_WAIT, rows.STEP_DURATION):
        own = by("max", OF_RANK, over("avg_over_time", rank_series(each), WINDOW))
        median = f"quantile by ({', '.join(OF_ATTEMPT)}) (0.5, {own})"
        conditions.append(f"  {own} - {attempt} {median}\n    > {attempt} ({STRAGGLE_PART:g} * {usual})\n")
    return Alert(
        name="OtelTrainRankStraggles",
        group=GROUP,
        metric=row.name,
        expression="or\n".join(conditions),
        hold="5m",
        severity=Severity.WARNING,  # the job goes on, as slowly as this rank
        summary=f"{_RUN}: rank {{{{ $labels.{RANK} }}}} on {{{{ $labels.{HOST} }}}} is slow: it takes or waits "
        "{{ $value | humanizeDuration }} a step longer than the median rank.",
        description=f"{row.description} {rows.STEP_DURATION.description} Look at the rank's loader, its storage and "
        "its node.",
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


def _points_refused() -> Alert:
    row = rows.POINTS_REFUSED
    return Alert(
        name="OtelTrainPointsRefused",
        group=GROUP,
        metric=row.name,
        expression=by("sum", (*OF_ATTEMPT, HOST), f"\n  {growth(rank_series(row), WINDOW)}\n"),
        hold="0s",
        severity=Severity.WARNING,  # training does not notice
        summary=f"{_RUN}: the receiver has refused {_COUNT} points in {WINDOW} from {{{{ $labels.{HOST} }}}}.",
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
