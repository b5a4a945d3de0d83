"""Judge what a store has kept of a receiver's check: each finding names the setting of the usual stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otel_train.catalogue.series_names import OF_RANK
from otel_train.diagnose.finding import Finding, Severity
from otel_train.number_text import counted
from otel_train.otlp.answers import Answer
from otel_train.probe.kept_points import ARRIVAL, Kept, expected_names, underscored
from otel_train.probe.probe_run import ProbeRun

WINDOW = (
    "Set an out-of-order window of a day: storage.tsdb.out_of_order_time_window: 24h (Prometheus), "
    "--tsdb.out-of-order.time-window=24h (Thanos receive), limits.out_of_order_time_window: 24h (Cortex)"
)
NAMING = (
    "Set otlp.translation_strategy: UnderscoreEscapingWithSuffixes (Prometheus), "
    "-opentelemetry.usePrometheusNaming (VictoriaMetrics)"
)
LABELS = (
    "Promote train.run.id, train.attempt, train.rank and host.name: otlp.promote_resource_attributes (Prometheus), "
    "--receive.otlp-promote-resource-attributes, once for each (Thanos receive), limits.promote_resource_attributes "
    "(Cortex)"
)
ONCE = "Set -dedup.minScrapeInterval=1ms (VictoriaMetrics); another store may have a setting of its own for it"
ASK = "Give --query URL, the address of what answers PromQL for the store: it is asked what has arrived"


def judge_repetition(run: ProbeRun, answer: Answer, kept: Kept | None) -> Finding:
    """Return whether a request may come twice, as it does where an answer is lost."""
    check = "repetition"
    if not answer.taken:
        return Finding(
            check=check,
            severity=Severity.WARNING,
            summary=f"a request that comes again is refused: {answer.cause}",
            evidence=_texts([answer]),
            cause="An answer that is lost makes the sidecar send again, then in ever smaller pieces",
            remedy=WINDOW,
        )
    if kept is None:
        return _unknown(check, "a repetition is taken; whether it is kept twice is not known")
    most = max((kept.counts().get(when, 0) for when in run.step_times), default=0)
    if most > 1:
        return Finding(
            check=check,
            severity=Severity.WARNING,
            summary=f"a request that comes again is kept again: one point is there {counted(most, 'time')}",
            cause="The store does not deduplicate: sums and counts over time come out too large",
            remedy=ONCE,
        )
    return Finding(check=check, severity=Severity.OK, summary="a request that comes again changes nothing")


def judge_older_points(run: ProbeRun, answers: Mapping[int, Answer], kept: Kept | None) -> Finding:
    """Return whether points may come after newer ones, as they do after an outage."""
    check = "older points"
    counts = kept.counts() if kept is not None else {}
    lost = [age for age, when in run.older_times.items() if not answers[age].taken or (kept and when not in counts)]
    if kept is None and not lost:
        return _unknown(check, "older points are taken; whether they are kept is not known")
    ages = dict(zip(run.older_times, map(_age, run.older_times), strict=True))
    if not lost:
        return Finding(check=check, severity=Severity.OK, summary=f"a point of {ages[max(ages)]} ago is kept")
    refused = [answers[age] for age in lost if not answers[age].taken]
    how = f"refused: {refused[0].cause}" if refused else "taken, and not kept"
    newer = [ages[age] for age in ages if age not in lost]
    summary = f"a point that is {ages[lost[0]]} older than the newest is {how}"
    return Finding(
        check=check,
        severity=Severity.NOTE if len(newer) > 1 else Severity.WARNING,
        summary=f"{summary}; one of {newer[-1]} is kept" if newer else summary,
        evidence=_texts(refused),
        cause="What waited in a ring or a queue through an outage is older than what is stored already",
        remedy=WINDOW,
    )


def judge_store(run: ProbeRun, kept: Kept | None, url: str) -> list[Finding]:
    """Return whether the points are in the store, under the dashboards' names and labels, NaN too.

    Args:
        run: The check's run.
        kept: What the store has of it; None where nobody answers.
        url: Address of the store.
    """
    if kept is None:
        findings = [_unknown(check) for check in ("names", "labels", "NaN")]
        return [
            Finding(check="arrival", severity=Severity.NOTE, summary="nobody was asked what has arrived", remedy=ASK),
            *findings,
        ]
    if not kept.series:
        return [
            Finding(
                check="arrival",
                severity=Severity.WARNING,
                summary=f"{url} has nothing after {ARRIVAL:.0f} s of what the receiver has taken",
                evidence=(f"no series telemetry*doctor* has {run.run_id} in a label",),
                cause="It is the store of another receiver, or what stands between drops the points or waits with them",
                remedy="Give as --query the store that this receiver writes to, and look at the log of what is between",
            )
        ]
    return [
        Finding(check="arrival", severity=Severity.OK, summary=f"{url} has the points"),
        _judge_names(kept),
        _judge_labels(kept),
        _judge_special_values(run, kept),
    ]


def _judge_names(kept: Kept) -> Finding:
    wrong = []
    for row, expected in expected_names().items():
        names = sorted({series.name for series in kept.of(row)})
        if expected not in names:
            wrong.append(f"{expected} is {', '.join(names) or 'not there'}")
    if not wrong:
        return Finding(check="names", severity=Severity.OK, summary="series have the dashboards' names")
    return Finding(
        check="names",
        severity=Severity.WARNING,
        summary="series have other names than the dashboards and alerts ask for",
        evidence=tuple(wrong),
        remedy=NAMING,
    )


def _judge_labels(kept: Kept) -> Finding:
    series = kept.series[0]
    labels = sorted(label for label in series.labels if label != "__name__")
    missing = [label for label in OF_RANK if label not in labels]
    if not missing:
        return Finding(
            check="labels", severity=Severity.OK, summary="series have run, attempt, rank and host as labels"
        )
    return Finding(
        check="labels",
        severity=Severity.WARNING,
        summary=f"series lack the labels {', '.join(missing)}, by which dashboards tell runs and ranks apart",
        evidence=(f"{series.name} has {', '.join(labels)}",),
        remedy=NAMING if {*missing} <= {underscored(label) for label in labels} else LABELS,
    )


def _judge_special_values(run: ProbeRun, kept: Kept) -> Finding:
    check = "NaN"
    missing = [name for name, when in run.special_times.items() if when not in kept.counts()]
    if not missing:
        return Finding(check=check, severity=Severity.OK, summary="NaN and infinity are kept")
    return Finding(
        check=check,
        severity=Severity.NOTE,
        summary=f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not kept: such a value leaves a gap",
        remedy="Look for a loss that is no number in wandb, or with `otel-train dump`",
    )


def _unknown(check: str, summary: str = "nobody was asked what has arrived") -> Finding:
    return Finding(check=check, severity=Severity.UNKNOWN, summary=summary)


def _texts(answers: Sequence[Answer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answer.text for answer in answers if answer.text))


def _age(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds >= 3600 else f"{seconds // 60} min"
