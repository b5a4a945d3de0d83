"""The alert rules in the real promtool: each fires where it should, and is silent where it should be."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from otel_train.catalogue import Instrument, Per, external, headline_row, healthy_range, rows
from otel_train.render import alerts, queries, rules_file
from otel_train.render.promql import cluster_series, rank_series
from tests.support.promtool import OF_ATTEMPT, RULES, expectation, plain, run_promtool, series

pytestmark = pytest.mark.stack

ALERTS = {alert.name: alert for alert in alerts()}
RANKS, PICKS = 2, 1000
"""Ranks of the job, and its picks in a step."""
FAR = 10**6
"""Where counters stand at first, so that nothing depends on their beginning."""
COLLECTOR = {"job": "otelcol", "instance": "collector:8888", "exporter": "otlp/bridge"}
STEP, AGE, SLOW = rank_series(rows.STEP), rank_series(rows.STEP_AGE), "0 _x59 1 _x59"
CLOCK = rank_series(rows.CLOCK_OFFSET)
LAG, BRIDGED = rank_series(rows.BRIDGE_LAG), rank_series(rows.BRIDGE_ROWS)
ABANDONED, DROPPED = rank_series(rows.REDUCTIONS_ABANDONED), rank_series(rows.RECORDS_DROPPED)
WAIT, DURATION = rank_series(rows.DATA_WAIT), rank_series(rows.STEP_DURATION)
LATE, REFUSED = rank_series(rows.BRIDGE_LATE_POINTS), rank_series(rows.BRIDGE_REFUSED_POINTS)
POINTS_REFUSED = external.REFUSED_ALONE.name
SEND_FAILED, QUEUE_SIZE, QUEUE_CAPACITY = (
    metric.name for metric in (external.SEND_FAILED, external.QUEUE_SIZE, external.QUEUE_CAPACITY)
)
OF_RANK_1 = OF_ATTEMPT | {"train_rank": "1", "host_name": "host-1"}
BRIDGE = {"job": "otel_train-bridge"}
OF_CLOCK = {
    "exporter": "isolating_otlp_http/prometheus",
    "service_name": "otel_train",
    "train_run_id": "run-1",
    "train_rank": "1",
    "host_name": "host-1",
}
OF_ERROR = COLLECTOR | {"error_type": "InvalidArgument"}


def job() -> list[dict[str, str]]:
    """Return what every job has: steps, ranks, picks."""
    return [
        *(series(rank_series(rows.STEP), "0+1x120", rank) for rank in range(RANKS)),
        series(cluster_series(rows.RANKS), f"{RANKS}x120"),
        series(cluster_series(rows.PICKS), f"{FAR}+{PICKS}x120"),
    ]


def test_rules_are_valid(promtool: Path, tmp_path: Path) -> None:
    """Prometheus takes the file, and finds every alert in it."""
    (tmp_path / RULES).write_text(rules_file())
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", tmp_path / RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_panels_have_valid_queries(promtool: Path, tmp_path: Path) -> None:
    """No query of a dashboard has a syntax error."""
    values = {"$run": "run-1", "$attempt": "7", "$rank": ".+", "$__rate_interval": "1m", "$__range": "1h"}
    asked = []
    for query in queries():
        expression = query.expression
        for name, value in values.items():
            expression = expression.replace(name, value)
        asked.append({"expr": expression, "eval_time": "1m", "exp_samples": []})
    run_promtool(promtool, tmp_path, {"promql_expr_test": asked})


def judged(key: str, figure: float) -> list[dict[str, str]]:
    """Return a job whose figure of a headline key is the given one."""
    row, per = headline_row(key), healthy_range(key).per
    total = {Per.CLUSTER: figure, Per.RANK: figure * RANKS, Per.PICK: figure * PICKS}[per]
    if row is rows.PICKS:
        return [*job()[:-1], series(cluster_series(row), f"{FAR}+{total}x120")]
    if key != row.wandb_key:
        return [*job(), series(cluster_series(row, "_max"), f"{total / RANKS}x120")]
    if row.instrument is Instrument.COUNTER:
        return [*job(), series(cluster_series(row), f"{FAR}+{total}x120")]
    return [*job(), series(cluster_series(row), f"{total}x120")]


@pytest.mark.parametrize(
    ("key", "inside", "outside"),
    [
        (key, end * inside, end * outside)
        for alert in ALERTS.values()
        for key in alert.keys
        for end, inside, outside in ((healthy_range(key).low, 1.02, 0.98), (healthy_range(key).high, 0.98, 1.02))
        if 0 < end < float("inf")
    ],
)
def test_headline_alert_keeps_range(promtool: Path, tmp_path: Path, key: str, inside: float, outside: float) -> None:
    """Just inside of an end of the range the alert is silent, just outside it fires and its summary has the value."""
    healthy, row = healthy_range(key), headline_row(key)
    alert = next(alert for alert in ALERTS.values() if key in alert.keys)
    per = {Per.CLUSTER: "", Per.RANK: " per rank", Per.PICK: " per pick"}[healthy.per]
    summary = f"Run run-1: {row.wandb_key} is {outside:.3g}{per}, healthy is {healthy}."
    tests = [
        {"input_series": judged(key, figure), "alert_rule_test": [expectation(alert, "15m", firing)]}
        for figure, firing in ((inside, []), (outside, [(OF_ATTEMPT, summary)]))
    ]
    run_promtool(promtool, tmp_path, *tests)


def test_alert_names_worst_owner(promtool: Path, tmp_path: Path) -> None:
    """The summary says which rank evicted most, and on which host."""
    alert = ALERTS["OtelTrainLedgerFalseEvictionsOutOfRange"]
    name = rank_series(rows.FALSE_EVICTIONS)
    owners = [series(name, "0+1x120", 0), series(name, "0+99x120", 1)]
    summary = (
        "Run run-1: ledger/false_evictions is 0.1 per pick, healthy is mean <= 0.01/pick, most on rank 1 (host-1)."
    )
    test = {
        "input_series": [*judged(alert.keys[0], 0.1), *owners],
        "alert_rule_test": [expectation(alert, "15m", [(OF_ATTEMPT, summary)])],
    }
    run_promtool(promtool, tmp_path, test)


def test_alert_names_oldest_reader(promtool: Path, tmp_path: Path) -> None:
    """The summary says which rank has the largest age."""
    alert = ALERTS["OtelTrainStreamMixingStalenessMaxOutOfRange"]
    ages = [
        series(cluster_series(rows.STALENESS_MAX), "0+1x120"),
        series(cluster_series(rows.STALENESS_MAX, "_rank"), "1x120"),
    ]
    summary = "Run run-1: stream_mixing/staleness_max is 90, healthy is max <= 16, on rank 1."
    test = {
        "input_series": [*job(), *ages],
        "alert_rule_test": [expectation(alert, "15m", [(OF_ATTEMPT, summary)])],
    }
    run_promtool(promtool, tmp_path, test)


@dataclass(frozen=True)
class Case:
    """Series with which an alert of the pipeline fires, or is silent."""

    alert: str
    why: str
    series: list[dict[str, str]]
    labels: dict[str, str]
    summary: str = ""
    """Empty where it is silent."""


def stuck(rank: int, phase: str, step: int = 60, seconds: int = 10) -> list[dict[str, str]]:
    """Return a rank whose steps took so long until its last one, 290 s ago."""
    return [
        series(rank_series(rows.STEP), f"0+1x{step} {step}x60", rank),
        series(rank_series(rows.STEP_DURATION), f"{seconds}x120", rank),
        series(rank_series(rows.STEP_AGE), "0x60 0+10x60", rank, phase=phase),
    ]


def slow_rank_1(until: int) -> list[dict[str, str]]:
    """Return a rank whose steps take ten minutes and that is there until a sample."""
    return [series(STEP, SLOW if until > 60 else "0", 1), series(AGE, f"0x{until}", 1, phase="compute")]


@pytest.mark.parametrize(
    "case",
    [
        Case(
            "OtelTrainRankSilent",
            "one of two ranks has stopped",
            [series(STEP, "0+1x120"), series(STEP, "0+1x50", 1)],
            OF_RANK_1,
            "Run run-1: rank 1 on host-1 is silent since its step 50, while other ranks go on.",
        ),
        Case(
            "OtelTrainRankSilent",
            "the job is over",
            [series(STEP, "0+1x50"), series(STEP, "0+1x50", 1)],
            OF_RANK_1,
        ),
        Case(
            "OtelTrainRankSilent",
            "steps take ten minutes",
            [series(STEP, SLOW), series(AGE, "0x120", phase="compute"), *slow_rank_1(120)],
            OF_RANK_1,
        ),
        Case(
            "OtelTrainRankSilent",
            "steps take ten minutes and one rank has stopped",
            [series(STEP, SLOW), series(AGE, "0x120", phase="compute"), *slow_rank_1(20)],
            OF_RANK_1,
            "Run run-1: rank 1 on host-1 is silent since its step 0, while other ranks go on.",
        ),
        Case(
            "OtelTrainRankSilent",
            "the other rank saves a checkpoint at the end",
            [series(STEP, "0+1x50"), series(AGE, "0x120", phase="compute"), series(STEP, "0+1x50", 1)],
            OF_RANK_1,
        ),
        Case(
            "OtelTrainJobHangs",
            "one rank waits for its data, the other one for it",
            [*stuck(0, "ledger"), *stuck(1, "data")],
            OF_RANK_1 | {"phase": "data"},
            "Run run-1 hangs: rank 1 on host-1 has ended no step since 60 and is in phase data.",
        ),
        Case(
            "OtelTrainJobHangs",
            "one rank is a step behind, whatever it does",
            [*stuck(0, "data"), *stuck(1, "ledger", 59)],
            OF_RANK_1 | {"phase": "ledger"},
            "Run run-1 hangs: rank 1 on host-1 has ended no step since 59 and is in phase ledger.",
        ),
        Case("OtelTrainJobHangs", "a checkpoint as long as others", [*stuck(0, "compute", seconds=150)], OF_RANK_1),
        Case(
            "OtelTrainRankStraggles",
            "one rank of three waits longer for its data",
            [series(WAIT, f"{seconds}x120", rank) for rank, seconds in enumerate((0.1, 0.9, 0.1))]
            + [series(DURATION, "1x120", rank) for rank in range(3)],
            OF_RANK_1,
            "Run run-1: rank 1 on host-1 is slow: it takes or waits 800ms a step longer than the median rank.",
        ),
        Case(
            "OtelTrainRankStraggles",
            "all are alike",
            [series(name, "1x120", rank) for name in (WAIT, DURATION) for rank in range(3)],
            OF_RANK_1,
        ),
        Case(
            "OtelTrainRanksOutOfStep",
            "a counter grows",
            [series(ABANDONED, "0x60 2x60")],
            OF_ATTEMPT,
            "Run run-1: ranks have abandoned 2 reductions in 10m; cluster-wide values are missing.",
        ),
        Case("OtelTrainRanksOutOfStep", "it grew long ago", [series(ABANDONED, "0x10 2x110")], OF_ATTEMPT),
        Case(
            "OtelTrainRecordsDropped",
            "a counter begins above 0",
            [series(DROPPED, "_x60 3x60", 1)],
            OF_ATTEMPT | {"host_name": "host-1"},
            "Run run-1: 3 records were lost in 10m on host-1.",
        ),
        Case("OtelTrainRecordsDropped", "none was lost", [series(DROPPED, "0x120")], OF_ATTEMPT),
        Case(
            "OtelTrainPointsRefused",
            "a counter grows",
            [series(rank_series(rows.POINTS_REFUSED), "0x60 4x60", 1, error_type="too_new")],
            OF_ATTEMPT | {"host_name": "host-1", "error_type": "too_new"},
            "Run run-1: the receiver has refused 4 points in 10m from host-1 (too_new).",
        ),
        Case(
            "OtelTrainPointsRefused",
            "none was refused",
            [series(rank_series(rows.POINTS_REFUSED), "0x120")],
            OF_ATTEMPT,
        ),
        Case(
            "OtelTrainClockWrong",
            "a rank's clock is behind",
            [series(CLOCK, "-40x120", 1, clock_reference="receiver")],
            OF_RANK_1 | {"clock_reference": "receiver"},
            "Run run-1: the clock of rank 1 on host-1 is -40.0 s ahead (behind where negative) of receiver.",
        ),
        Case("OtelTrainClockWrong", "it is right now", [series(CLOCK, "-40x60 0.1x60", 1)], OF_RANK_1),
        Case(
            "OtelTrainClockWrong",
            "a clock is ahead of the other ranks'",
            [
                series(CLOCK, "0.01x120", clock_reference="ranks"),
                series(CLOCK, "3600x120", 1, clock_reference="ranks"),
            ],
            OF_RANK_1 | {"clock_reference": "ranks"},
            "Run run-1: the clock of rank 1 on host-1 is 3600.0 s ahead (behind where negative) of ranks.",
        ),
        Case(
            "OtelTrainBridgeBehind",
            "a step waits for long",
            [plain(LAG, "0x60 90x60", **BRIDGE)],
            BRIDGE,
            "The wandb bridge otel_train-bridge is late by 1m 30s.",
        ),
        Case("OtelTrainBridgeBehind", "an incomplete step waits", [plain(LAG, "45x120", **BRIDGE)], BRIDGE),
        Case(
            "OtelTrainBridgeSilent",
            "it has stopped while a job goes on",
            [series(STEP, "0+1x120"), plain(BRIDGED, "0+1x50", **BRIDGE)],
            BRIDGE,
            "The wandb bridge otel_train-bridge is silent since its row 50, while jobs go on.",
        ),
        Case(
            "OtelTrainBridgeSilent",
            "it has stopped while a job goes on whose steps take ten minutes",
            [series(STEP, SLOW), series(AGE, "0x120", phase="compute"), plain(BRIDGED, "0+1x50", **BRIDGE)],
            BRIDGE,
            "The wandb bridge otel_train-bridge is silent since its row 50, while jobs go on.",
        ),
        Case(
            "OtelTrainBridgeSilent",
            "it was started again",
            [
                series(STEP, "0+1x120"),
                plain(BRIDGED, "0+1x50", instance="a", **BRIDGE),
                plain(BRIDGED, "_x52 0+1x68", instance="b", **BRIDGE),
            ],
            BRIDGE,
        ),
        Case("OtelTrainBridgeSilent", "no job goes on", [plain(BRIDGED, "0+1x50", **BRIDGE)], BRIDGE),
        Case(
            "OtelTrainBridgeLosesPoints",
            "a counter of late points grows",
            [plain(LATE, "0x60 7x60", **BRIDGE), plain(REFUSED, "0x120", **BRIDGE)],
            BRIDGE,
            "The wandb bridge otel_train-bridge has lost 7 points in 10m.",
        ),
        Case(
            "OtelTrainBridgeLosesPoints",
            "a counter of refused points grows",
            [plain(LATE, "0x120", **BRIDGE), plain(REFUSED, "1x60 3x60", **BRIDGE)],
            BRIDGE,
            "The wandb bridge otel_train-bridge has lost 2 points in 10m.",
        ),
        Case(
            "OtelTrainBridgeLosesPoints",
            "none was lost",
            [plain(LATE, "0x120", **BRIDGE), plain(REFUSED, "3x120", **BRIDGE)],
            BRIDGE,
        ),
        Case(
            "OtelTrainCollectorQueueFilling",
            "a queue is more than half full",
            [plain(QUEUE_SIZE, "600x120", **COLLECTOR), plain(QUEUE_CAPACITY, "1000x120", **COLLECTOR)],
            COLLECTOR,
            "The collector's queue to otlp/bridge is 60% full.",
        ),
        Case(
            "OtelTrainCollectorQueueFilling",
            "it is less full",
            [plain(QUEUE_SIZE, "400x120", **COLLECTOR), plain(QUEUE_CAPACITY, "1000x120", **COLLECTOR)],
            COLLECTOR,
        ),
        Case(
            "OtelTrainCollectorDropsData",
            "the series of its failures appears",
            [plain(SEND_FAILED, "_x60 5x60", **OF_ERROR)],
            OF_ERROR,
            "The collector gave up on 5 data points to otlp/bridge in 10m (InvalidArgument).",
        ),
        Case(
            "OtelTrainCollectorPointsRefused",
            "a rank's clock is wrong",
            [
                plain(POINTS_REFUSED, "_x60 5x60", **OF_CLOCK, metric="train.step", reason="too_far_ahead"),
                plain(POINTS_REFUSED, "_x60 2x60", **OF_CLOCK, metric="train.loss", reason="too_far_ahead"),
            ],
            OF_CLOCK | {"reason": "too_far_ahead"},
            "Prometheus refuses points of otel_train, run run-1, rank 1 on host-1 (too_far_ahead): 7 in 10m.",
        ),
        Case(
            "OtelTrainCollectorPointsRefused",
            "Prometheus has them already",
            [plain(POINTS_REFUSED, "_x60 5x60", **OF_CLOCK, metric="train.step", reason="repetition")],
            OF_CLOCK,
        ),
        Case("OtelTrainCollectorDropsData", "it failed long ago", [plain(SEND_FAILED, "5x120", **OF_ERROR)], OF_ERROR),
    ],
    ids=lambda case: f"{case.alert}: {case.why}",
)
def test_pipeline_alert_fires_alone(promtool: Path, tmp_path: Path, case: Case) -> None:
    """It fires when the way is broken, and only then."""
    firing = [(case.labels, case.summary)] if case.summary else []
    test = {"input_series": case.series, "alert_rule_test": [expectation(ALERTS[case.alert], "15m", firing)]}
    run_promtool(promtool, tmp_path, test)


def test_each_alert_has_both_cases() -> None:
    """No alert is without a case in which it fires and one in which it is silent."""
    (parametrized,) = vars(test_pipeline_alert_fires_alone)["pytestmark"]
    cases: list[Case] = parametrized.args[1]
    assert {alert.name for alert in ALERTS.values() if not alert.keys} == {case.alert for case in cases if case.summary}
    assert {case.alert for case in cases if case.summary} == {case.alert for case in cases if not case.summary}
