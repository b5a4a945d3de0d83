"""Panels and alerts over attempts, on a real Prometheus: what each shows is computed again from the records."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_train.catalogue import rows
from otel_train.read.prometheus import read_prometheus
from otel_train.render import alerts, queries
from tests.support.expected_alerts import ALERTS
from tests.support.expected_panels import PANELS
from tests.support.expected_values import Expected, View
from tests.support.prometheus import CONFIGURATION, Prometheus, running_prometheus
from tests.support.recorded_runs import Attempt, send_runs

pytestmark = pytest.mark.stack
HOUR = 3600.0
MOMENTS = 70
"""Times at which each expression is asked for each run."""


def recorded(now: float) -> list[Attempt]:
    """Return attempts of runs that were over half an hour ago."""
    end = float(int(now)) - HOUR / 2
    three_days = end - 73 * HOUR
    crash = 3 * HOUR + 600
    return [
        # Two attempts over three days, the second one resumed at an earlier step; nine minutes between two log steps.
        Attempt(run="long", began=three_days, every=540, records=222, stride=100),
        Attempt(run="long", began=three_days + 35 * HOUR, every=540, records=240, stride=100, first=21_000),
        # A restart within seconds, while other runs go on; records are lost from the beginning on, a clock is wrong.
        Attempt(run="second", began=end - 1000, every=1, records=200, dropped=(0, 4), clock=40.0),
        Attempt(run="second", began=end - 790, every=1, records=700, first=150, dropped=(3, 2), clock=-90.0),
        Attempt(run="tenth", began=end - 700, every=0.1, records=800, ranks=1),
        Attempt(run="minute", began=end - HOUR, every=60, records=45, ranks=1, stride=20),
        Attempt(run="slow", began=end - crash - 2 * HOUR, every=600, records=14, stride=500),
        Attempt(run="slow", began=end - crash, every=600, records=15, stride=500, first=6500),
        Attempt(run="wide", began=end - 240, every=30, records=5, ranks=256),
    ]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, dict[str, list[Attempt]]]]:
    """Return a Prometheus that has the runs, and the attempts of each run."""
    folder = tmp_path_factory.mktemp("attempts")
    runs: dict[str, list[Attempt]] = {}
    for attempt in recorded(time.time()):
        runs.setdefault(attempt.run, []).append(attempt)
    configuration = folder / "prometheus.yml"
    # Three days come within seconds, while Prometheus has samples of the present already.
    text, widened = re.subn("out_of_order_time_window: .*", "out_of_order_time_window: 96h", CONFIGURATION.read_text())
    assert widened == 1
    configuration.write_text(text)
    with pytest.MonkeyPatch.context() as monkeypatch, running_prometheus(folder, configuration) as prometheus:
        prometheus.export_here(monkeypatch)
        for run, attempts in runs.items():
            send_runs(folder / run, attempts, twice=run == "minute")
        yield prometheus, runs


def view_of(attempts: list[Attempt]) -> View:
    """Return the view of a run: from before its first attempt until its last one is no more seen."""
    return View(attempts, attempts[0].began - 30.45, attempts[-1].last + 780, MOMENTS)


def answers(prometheus: Prometheus, expression: str, view: View) -> Any:
    """Return the series of an expression at the view's moments, in the order of Prometheus' answer."""
    values = {
        "$run": view.run,
        "$attempt": ".+",
        "$rank": ".+",
        "$__rate_interval": "1m",
        "$__range": f"{view.shown}s",
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert not re.search(r"\$\w", expression), expression
    parameters = {"start": view.start, "end": view.moments[-1], "step": view.step}
    return prometheus.get("query_range", query=expression, **parameters)["result"]


def differences(answer: Any, expected: Expected, view: View) -> list[object]:
    """Return where an answer is not as expected: moment (seconds since the first), what was expected, what is there."""
    shown: dict[float, list[tuple[tuple[str, ...], float]]] = {moment: [] for moment in view.moments}
    for series in answer:
        key = tuple(series["metric"].get(label, "") for label in expected.labels)
        for moment, value in series["values"]:
            if not math.isnan(float(value)):
                shown[view.nearest(float(moment))].append((key, float(value)))
    wrong: list[object] = []
    for moment, pairs in shown.items():
        values = expected.compute(view, moment)
        values = {key: value for key, value in values.items() if value is None or not math.isnan(value)}
        if not expected.agrees(pairs, values):
            wrong.append((round(moment - view.start), values, pairs))
    return wrong


RUNS = pytest.mark.parametrize("run", ["long", "second", "tenth", "minute", "slow", "wide"])


@RUNS
def test_panels_equal_records(sent: tuple[Prometheus, dict[str, list[Attempt]]], run: str) -> None:
    """Each query of each panel that is about a run shows what was recorded, at any time of the run."""
    prometheus, runs = sent
    view, wrong = view_of(runs[run]), {}
    numbers: dict[str, int] = {}
    for query in queries():
        number = numbers[query.panel] = numbers.get(query.panel, -1) + 1
        if "$run" not in query.expression:
            continue  # the collector's and the bridge's series know no runs
        differs = differences(answers(prometheus, query.expression, view), PANELS[query.panel][number], view)
        if differs:
            wrong[query.panel, number] = (len(differs), differs[0])
    assert not wrong, "\n".join(f"{panel}: {what}" for panel, what in wrong.items())


@RUNS
def test_alerts_equal_records(sent: tuple[Prometheus, dict[str, list[Attempt]]], run: str) -> None:
    """Each alert's condition holds for a run just when its records say so: not at an attempt's begin or end."""
    prometheus, runs = sent
    view, wrong = view_of(runs[run]), {}
    for alert in alerts():
        answer = [
            series
            for series in answers(prometheus, alert.expression, view)
            if series["metric"].get("train_run_id", run) == run
        ]
        differs = differences(answer, ALERTS.get(alert.name) or ALERTS[""], view)
        if differs:
            wrong[alert.name] = (len(differs), differs[0])
    assert not wrong, "\n".join(f"{alert}: {what}" for alert, what in wrong.items())


@RUNS
def test_reader_equals_newest_records(sent: tuple[Prometheus, dict[str, list[Attempt]]], run: str) -> None:
    """`doctor URL` and `report URL` read each count of the newest attempt, of the cluster and of each rank."""
    prometheus, runs = sent
    newest, key = runs[run][-1], rows.PICKS.wandb_key
    history = read_prometheus(prometheus.url, run)
    assert dict(zip(history.cluster.steps, history.cluster.values[key], strict=True)) == {
        interval.step: interval[rows.PICKS.name] for interval in newest.cluster
    }
    totals = {rank: sum(track.values[key]) for rank, track in history.ranks.items()}
    assert totals == {rank: sum(one[rows.PICKS.name] for one in own) for rank, own in enumerate(newest.of_rank)}
