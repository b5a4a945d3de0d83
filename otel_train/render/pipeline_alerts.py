"""The alerts about the telemetry pipeline: a silent rank, lost records, a bridge or a collector that is too slow."""

from __future__ import annotations

from otel_train.catalogue import Metric, Phase, external, rows
from otel_train.catalogue.external import ExternalMetric
from otel_train.host_clock import COSTS, LIMIT
from otel_train.render.alert import Alert, Severity
from otel_train.render.health_expressions import WINDOW
from otel_train.render.promql import (
    HOST,
    OF_ATTEMPT,
    OF_RANK,
    RANK,
    RUN,
    by,
    counted,
    grown,
    label_name,
    over,
    rank_series,
)

GROUP = "pipeline"
BRIDGE_LAG_LIMIT = 60.0
"""Seconds; the bridge itself waits 30 s for the missing points of a step."""
HANG_LIMIT = 60.0
"""Seconds without a step from which a job may hang ..."""
HANG_TIMES = 3.0
"""... and how many times the longest mean step of six hours it must be: a checkpoint is not a hang."""
STRAGGLE_PART = 0.25
"""Share of the mean step by which a slow rank is slower than the median one."""
QUEUE_LIMIT = 0.5
"""Part of a queue's capacity: there is as much time left as it took to come here."""

_DATA, _COMPUTE = (phase.name.lower() for phase in (Phase.DATA, Phase.COMPUTE))
_RUN = f"Run {{{{ $labels.{RUN} }}}}"
_RANK = f"rank {{{{ $labels.{RANK} }}}} on {{{{ $labels.{HOST} }}}}"
_BRIDGE = "The wandb bridge {{ $labels.job }}"
_EXPORTER_LABELS = ("job", "instance", external.EXPORTER_LABEL)
_EXPORTER = f"{{{{ $labels.{external.EXPORTER_LABEL} }}}}"
_REASON = label_name(rows.POINTS_REFUSED.attribute)
_COUNT = "{{ printf `%.0f` $value }}"


def pipeline_alerts() -> list[Alert]:
    """Return the alerts."""
    of_host = (*OF_ATTEMPT, HOST)
    # The comment beside a name is the reason for its severity.
    return [
        _rank_silent(),
        _job_hangs(),
        _rank_straggles(),
        _alert(
            "RanksOutOfStep",  # training itself goes on; a rank that has really died is a silent one too
            rows.REDUCTIONS_ABANDONED,
            _grown(rows.REDUCTIONS_ABANDONED, OF_ATTEMPT),
            f"{_RUN}: ranks have abandoned {_COUNT} reductions in {WINDOW}; cluster-wide values are missing.",
        ),
        _alert(
            "RecordsDropped",  # training does not notice
            rows.RECORDS_DROPPED,
            _grown(rows.RECORDS_DROPPED, of_host),
            f"{_RUN}: {_COUNT} records were lost in {WINDOW} on {{{{ $labels.{HOST} }}}}.",
        ),
        _alert(
            "PointsRefused",  # training does not notice
            rows.POINTS_REFUSED,
            _grown(rows.POINTS_REFUSED, (*of_host, _REASON)),
            f"{_RUN}: the receiver has refused {_COUNT} points in {WINDOW} from {{{{ $labels.{HOST} }}}} "
            f"({{{{ $labels.{_REASON} }}}}).",
        ),
        _clock_wrong(),
        _bridge_behind(),
        _bridge_silent(),
        _alert(
            "BridgeLosesPoints",  # their rows are in wandb, marked as partial
            rows.BRIDGE_REFUSED_POINTS,
            f"{_grown(rows.BRIDGE_LATE_POINTS, ('job',))} or {_grown(rows.BRIDGE_REFUSED_POINTS, ('job',))}",
            f"{_BRIDGE} has lost {_COUNT} points in {WINDOW}.",
            what_to_do=f"{rows.BRIDGE_REFUSED_POINTS.remedy} Or: {rows.BRIDGE_LATE_POINTS.description} "
            f"{rows.BRIDGE_LATE_POINTS.remedy}",
        ),
        _alert(
            "CollectorQueueFilling",  # nothing is lost yet
            external.QUEUE_SIZE,
            by(
                "max",
                _EXPORTER_LABELS,
                f"{external.QUEUE_SIZE.name} / {external.QUEUE_CAPACITY.name} > {QUEUE_LIMIT:g}",
            ),
            f"The collector's queue to {_EXPORTER} is {{{{ $value | humanizePercentage }}}} full.",
            hold="2m",
        ),
        _collector_points_refused(),
        _alert(
            "CollectorDropsData",  # gone for good, but training does not notice
            external.SEND_FAILED,
            _grown(external.SEND_FAILED, (*_EXPORTER_LABELS, external.ERROR_LABEL)),
            f"The collector gave up on {_COUNT} data points to {_EXPORTER} in {WINDOW} "
            f"({{{{ $labels.{external.ERROR_LABEL} }}}}).",
        ),
    ]


def _collector_points_refused() -> Alert:
    row, reason, service = external.REFUSED_ALONE, external.REASON_LABEL, external.SERVICE_LABEL
    lost = f'{row.name}{{{reason}!="{external.REPETITION}"}}'
    labels = (external.EXPORTER_LABEL, service, RUN, RANK, HOST, reason)
    return _alert(
        "CollectorPointsRefused",  # all other points arrive, and training does not notice
        row,
        by("sum", labels, f"\n  {grown(lost, WINDOW)}\n"),
        f"Prometheus refuses points of {{{{ $labels.{service} }}}}"
        f"{{{{ with $labels.{RUN} }}}}, run {{{{ . }}}}, {_RANK}{{{{ end }}}} "
        f"({{{{ $labels.{reason} }}}}): {_COUNT} in {WINDOW}.",
    )


def _alert(
    name: str,
    row: Metric | ExternalMetric,
    expression: str,
    summary: str,
    *,
    what_to_do: str = "",
    hold: str = "0s",
    severity: Severity = Severity.WARNING,
) -> Alert:
    """Return an alert of this group, whose text begins with the description of its metric."""
    return Alert(
        name=f"OtelTrain{name}",
        group=GROUP,
        metric=row.name,
        expression=expression,
        hold=hold,
        severity=severity,
        summary=summary,
        description=f"{row.description} {what_to_do or row.remedy}",
    )


def _grown(row: Metric | ExternalMetric, labels: tuple[str, ...]) -> str:
    """Return the expression of a counter's growth, by labels; it fires on any."""
    if row in rows.PIPELINE:  # a session's own, of one attempt
        return by("sum", labels, f"\n  {counted(rank_series(row), WINDOW)} > 0\n")
    series = rank_series(row) if isinstance(row, Metric) else row.name
    return by("sum", labels, f"\n  {grown(series, WINDOW)}\n")


def _heard(window: str) -> str:
    """Return the expression of the ranks that have ended a step in a window, or of whose state a sidecar has told.

    Steps may be minutes apart; the state is told every 10 s.
    """
    return " or ".join(over("last_over_time", rank_series(row), window) for row in (rows.STEP, rows.STEP_AGE))


def _rank_silent() -> Alert:
    last, heard = (
        by("max", OF_RANK, over("last_over_time", rank_series(rows.STEP), "1h")),
        by("max", OF_RANK, _heard("2m")),
    )
    attempt = f"on ({', '.join(OF_ATTEMPT)})"
    newest = f"{by('max', OF_ATTEMPT, last)} and {attempt} {by('max', OF_ATTEMPT, _heard('1m'))}"
    return _alert(
        "RankSilent",
        rows.STEP,
        # Ranks that end together do so at the same step, and one of them may take long to save a checkpoint.
        f"  ({last} unless {heard})\n< {attempt} group_left ()\n  ({newest})\n",
        f"{_RUN}: {_RANK} is silent since its step {_COUNT}, while other ranks go on.",
        what_to_do="This rank has sent none for two minutes. Look whether its process and its node's sidecar live.",
        hold="1m",
        # The job hangs in its next collective, or goes on without the rank's data.
        severity=Severity.CRITICAL,
    )


def _job_hangs() -> Alert:
    """Name the rank that is waited for: at the oldest step and, of those at one step, waiting for its data."""
    row = rows.STEP_AGE
    of_rank, on_rank = (*OF_RANK, row.attribute), f"on ({', '.join(OF_RANK)})"
    longest = by("max", OF_RANK, over("max_over_time", rank_series(rows.STEP_DURATION), "6h"))
    step = by("max", OF_RANK, over("max_over_time", rank_series(rows.STEP), "6h"))
    conditions = []
    for order, matcher in enumerate((f'="{_DATA}"', f'="{_COMPUTE}"', f'!~"{_DATA}|{_COMPUTE}"')):
        age = by("max", of_rank, over("last_over_time", f"{rank_series(row)}{{{row.attribute}{matcher}}}", "1m"))
        limit = f"clamp_min({HANG_TIMES:g} * {longest}, {HANG_LIMIT:g})"
        # The age only selects: the value is the step, and a little more the later the phase comes in it.
        stuck = f"0 * ({age} > {on_rank} group_left () {limit})"
        conditions.append(f"    {stuck}\n    + {on_rank} group_left () {step} + {order / 10:g}\n")
    return _alert(
        "JobHangs",
        row,
        f"bottomk by ({', '.join(OF_ATTEMPT)}) (1,\n" + "  or\n".join(conditions) + ")\n",
        f"{_RUN} hangs: {_RANK} has ended no step since {_COUNT} and is in phase {{{{ $labels.{row.attribute} }}}}.",
        what_to_do=f"No rank is further back. {row.remedy}",
        severity=Severity.CRITICAL,  # every rank waits for this one
    )


def _clock_wrong() -> Alert:
    row = rows.CLOCK_OFFSET
    labels = (*OF_RANK, label_name(row.attribute))
    offset = by("max", labels, over("last_over_time", rank_series(row), "2m"))
    return _alert(
        "ClockWrong",  # training goes on, with values under wrong times or refused ones
        row,
        f"{offset} > {LIMIT:g}\nor\n{offset} < -{LIMIT:g}\n",
        f"{_RUN}: the clock of {_RANK} is {{{{ printf `%.1f` $value }}}} s ahead (behind where negative) of "
        f"{{{{ $labels.{label_name(row.attribute)} }}}}.",
        what_to_do=f"{COSTS}. {row.remedy}",
    )


def _rank_straggles() -> Alert:
    attempt = f"on ({', '.join(OF_ATTEMPT)}) group_left ()"
    usual = by("avg", OF_ATTEMPT, over("avg_over_time", rank_series(rows.STEP_DURATION), WINDOW))
    conditions = []
    for row in (rows.DATA_WAIT, rows.STEP_DURATION):
        own = by("max", OF_RANK, over("avg_over_time", rank_series(row), WINDOW))
        median = f"quantile by ({', '.join(OF_ATTEMPT)}) (0.5, {own})"
        conditions.append(f"  {own} - {attempt} {median}\n    > {attempt} ({STRAGGLE_PART:g} * {usual})\n")
    return _alert(
        "RankStraggles",  # the job goes on, as slowly as this rank
        rows.DATA_WAIT,
        "or\n".join(conditions),
        f"{_RUN}: {_RANK} is slow: it takes or waits {{{{ $value | humanizeDuration }}}} a step longer than the "
        "median rank.",
        what_to_do=f"{rows.STEP_DURATION.description} Look at the rank's loader, its storage and its node.",
        hold="5m",
    )


def _bridge_behind() -> Alert:
    # A bridge that was started again has a new instance: the last value of the old one must not outlive it.
    lag = by("max", ("job",), over("last_over_time", rank_series(rows.BRIDGE_LAG), "1m"))
    return _alert(
        "BridgeBehind",  # its inbox is on disk: rows come late, and are not lost
        rows.BRIDGE_LAG,
        f"{lag} > {BRIDGE_LAG_LIMIT:g}",
        f"{_BRIDGE} is late by {{{{ $value | humanizeDuration }}}}.",
        hold="2m",
    )


def _bridge_silent() -> Alert:
    rows_of = rank_series(rows.BRIDGE_ROWS)
    of_hour, of_minutes = (by("max", ("job",), over("last_over_time", rows_of, window)) for window in ("1h", "2m"))
    return _alert(
        "BridgeSilent",  # the collector keeps what the bridge does not take
        rows.BRIDGE_ROWS,
        # What ranks send shows that the way to Prometheus is open, and that there is something to bridge.
        f"  {of_hour}\nunless\n  {of_minutes}\nand on ()\n  ({_heard('1m')})\n",
        f"{_BRIDGE} is silent since its row {_COUNT}, while jobs go on.",
        what_to_do="It has sent nothing for two minutes. Look whether its process lives, and at its log.",
        hold="2m",
    )
