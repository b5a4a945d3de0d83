"""The reference job through the whole stack: values, panels and alerts, from the real collector and Prometheus."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_train.catalogue import HEADLINE_KEYS, MAX_SUFFIX, Instrument, headline_row, rows
from otel_train.render.alert_rules import alerts
from otel_train.render.dashboards import Query, queries
from otel_train.render.promql import cluster_series, rank_series
from otel_train.trainer.config import find_config, load_config
from tests.support.commands import run_otel_train
from tests.support.compose_stack import ENDPOINT, Stack
from tests.support.panel_queries import answer
from tests.support.replay import replay
from tests.support.stack_programs import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
CONFIGURATIONS = ("healthy", "starved_reader", "collapsed_mix", "undersized_ledger")
MAY_BE_EMPTY = {
    (
        "data-mixing",
        "Repeated samples",
    ): "only rows that carry sample keys can be seen twice, and those of this job do not",
    ("step-and-pipeline", "Clocks that are off"): "it shows those that are wrong, and this machine's is right",
    ("step-and-pipeline", "Data points given up or refused"): "a counter of failures begins with the first of them",
}
"""Panels (dashboard, title) with a query that returns nothing while all goes well, and why."""


@dataclass(frozen=True)
class Run:
    """A smoke run against the stack."""

    name: str
    run_id: str
    out: Path

    @property
    def matchers(self) -> str:
        """Label matchers of its series of rank 0."""
        return f'{{train_run_id="{self.run_id}",train_rank="0"}}'


@pytest.fixture(scope="module")
def runs(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:  # noqa: ARG001  # it must be up
    """Run every shipped configuration against the stack; each passes its own verdict."""
    made = {}
    for name in CONFIGURATIONS:
        out = tmp_path_factory.mktemp(name)
        done = run_otel_train("smoke", name, "--endpoint", ENDPOINT, "--events", "--out", out)
        assert done.returncode == 0, done.stdout + done.stderr
        made[name] = Run(name, json.loads((out / "result.json").read_text())["run_id"], out)
    return made


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_both_sinks_equal_replay(name: str, stack: Stack, runs: dict[str, Run], tmp_path: Path) -> None:
    """Each headline key at each step, once; counters are cumulative in Prometheus and the interval's in wandb."""
    run, replayed = runs[name], replay(runs[name].out)

    def by_step(series: str, steps: Mapping[int, int]) -> dict[int, float]:
        (samples,) = stack.prometheus.samples(series + run.matchers).values()
        assert len({steps[time] for time, _ in samples}) == len(samples)
        return {steps[time]: value for time, value in samples}

    def assert_equal(value: float, expected: float, where: object) -> None:
        exact = isinstance(expected, int) or float(expected).is_integer()
        assert value == (expected if exact else pytest.approx(expected, rel=1e-9, abs=0)), where

    last = cluster_series(rows.PICKS) + run.matchers
    wait_until(
        lambda: [len(samples) for samples in stack.prometheus.samples(last).values()] == [len(replayed)],
        60,
        "arrival",
        pause=0.5,
    )
    wait_until(lambda: len(stack.wandb_rows(run.run_id, tmp_path)) == len(replayed), 60, "arrival in wandb", pause=0.5)
    history = [row.values for row in stack.wandb_rows(run.run_id, tmp_path)]
    assert [row[rows.STEP.wandb_key] for row in history] == [row[rows.STEP.wandb_key] for row in replayed]
    (numbers,) = stack.prometheus.samples(rank_series(rows.STEP) + run.matchers).values()
    steps = {time: int(number) for time, number in numbers}
    for key in HEADLINE_KEYS:
        row = headline_row(key)
        sibling = MAX_SUFFIX if key != row.wandb_key else ""
        values = by_step(cluster_series(row, sibling), steps)
        counted = row.instrument is Instrument.COUNTER and not sibling
        totals: Iterator[Any] = iter([row[key] for row in replayed])
        for replayed_row, at_wandb, total in zip(
            replayed, history, itertools.accumulate(totals) if counted else totals, strict=True
        ):
            step = int(replayed_row[rows.STEP.wandb_key])
            assert_equal(values.pop(step), total, (key, step, "Prometheus"))
            assert_equal(at_wandb[key], replayed_row[key], (key, step, "wandb"))
        assert not values


def test_panels_return_data(stack: Stack, runs: dict[str, Run]) -> None:
    """Each query does, of one of the four runs at least; panels that may be empty are listed with the reason."""
    empty = {
        (query.dashboard, query.panel)
        for query in queries()
        if not any(answer(stack.prometheus, query, run.run_id) for run in runs.values())
    }
    assert empty == set(MAY_BE_EMPTY)


def test_dashboards_mark_attempts(stack: Stack, runs: dict[str, Run]) -> None:
    """Every dashboard marks the begin of each attempt; each run has one, which begins once."""
    files = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
    marks = [mark for file in files for mark in json.loads(file.read_text())["annotations"]["list"] if "expr" in mark]
    assert len(marks) == len(files)
    for mark in marks:
        for run in runs.values():
            assert len(answer(stack.prometheus, Query("", mark["name"], mark["expr"]), run.run_id)) == 1


def test_configurations_fire_their_alerts(stack: Stack, runs: dict[str, Run]) -> None:
    """Just those of the metrics that it drives out of their range, so healthy none; the pipeline's are silent."""
    expected = {
        name: {
            alert.name for alert in alerts() if set(alert.keys) & set(load_config(find_config(name)).expect.unhealthy)
        }
        for name in CONFIGURATIONS
    }
    assert not expected["healthy"]
    assert all(expected[name] for name in CONFIGURATIONS[1:])

    def fired_for(run_id: str) -> set[str]:
        samples = stack.prometheus.samples(f'ALERTS{{alertstate="firing",train_run_id="{run_id}"}}')
        return {dict(labels)["alertname"] for labels in samples}

    def fired() -> dict[str, set[str]]:
        return {name: fired_for(run.run_id) for name, run in runs.items()}

    wait_until(
        lambda: all(expected[name] <= names for name, names in fired().items()), 300, f"firing of {expected}", pause=1.0
    )
    assert fired() == expected
    assert fired_for("") == set()  # without a run: the pipeline's
