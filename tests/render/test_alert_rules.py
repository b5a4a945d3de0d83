"""The alerts: their conditions, ranges, pages and panels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from otel_train.catalogue import JUDGED, HealthyRange, Per, Statistic, headline_row, healthy_range, rows
from otel_train.exceptions import ConfigurationError
from otel_train.render import alerts, dashboards, rules_file
from otel_train.render.health_expressions import WINDOW, figure
from otel_train.render.promql import cluster_series, rank_series, risen
from otel_train.render.runbooks import panels_of, prose
from otel_train.trainer import load_config, shipped_configs


def replaced(key: str, healthy: HealthyRange) -> Callable[[str], HealthyRange]:
    return lambda name: healthy if name == key else healthy_range(name)


def test_judged_metrics_have_one_alert() -> None:
    """Each metric with a healthy range has exactly one alert."""
    assert [alert.metric for alert in alerts() if alert.keys] == [row.name for row in JUDGED]


def test_alerts_have_page_and_panel() -> None:
    """Each alert has its text in runbooks.toml, and a panel to open; no text is left over."""
    assert {alert.name for alert in alerts()} == set(prose())
    assert [alert.name for alert in alerts() if not panels_of(alert, dashboards())] == []


@pytest.mark.parametrize("path", shipped_configs().values(), ids=lambda path: path.stem)
def test_expected_faults_have_alerts(path: Path) -> None:
    """An alert judges each key that a shipped configuration is to drive out of its range."""
    judged = {key for alert in alerts() for key in alert.keys}
    assert set(load_config(path).expect.unhealthy) <= judged


def test_job_range_changes_its_alert() -> None:
    """A job's own range changes the alert's bound and statistic; a range that holds everything has no alert."""
    own = HealthyRange(high=7.0, statistic=Statistic.MEAN)
    changed = {alert.metric: alert.expression for alert in alerts(replaced("stream_mixing/staleness_max", own))}
    assert "avg_over_time(" in changed["stream_mixing.staleness_max"]
    assert "> 7\n" in changed["stream_mixing.staleness_max"]
    every = alerts(replaced("stream_mixing/staleness_max", HealthyRange()))
    assert "stream_mixing.staleness_max" not in [alert.metric for alert in every]


def test_maximum_may_go_unjudged() -> None:
    """A range whose `worst` is false judges the total only, not the worst rank."""
    keys = {alert.metric: alert.keys for alert in alerts() if alert.keys}
    assert keys["ledger.fresh_writes"] == ("ledger/fresh_writes",)
    assert keys["ledger.evictions"] == ("ledger/evictions", "ledger/evictions_max")


@pytest.mark.parametrize("per", Per)
def test_gauge_is_divided_per_range(per: Per) -> None:
    """The figure of a gauge is divided by the ranks or the picks, as its range says."""
    expression = figure("stream_mixing/active_readers", HealthyRange(high=1.0, per=per))
    value = "avg_over_time(stream_mixing_cluster_active_readers[10m])"
    divisors = {
        Per.CLUSTER: "",
        Per.RANK: " / last_over_time(train_cluster_ranks[10m])",
        Per.PICK: f" / ({risen(cluster_series(rows.PICKS), WINDOW)} / {risen(rank_series(rows.STEP), WINDOW)})",
    }
    assert expression == value + divisors[per]


def test_counter_range_needs_mean() -> None:
    """A counter's range with another statistic than the mean is refused; the message says what to set."""
    largest = HealthyRange(high=1.0, statistic=Statistic.MAX)
    with pytest.raises(ConfigurationError, match=r"health\.ledger/evictions: .* set statistic to mean"):
        rules_file(replaced("ledger/evictions", largest))


def test_rule_file_holds_every_alert() -> None:
    """The rule file has each alert, with severity, metric and a link below the given address, and no group twice."""
    groups = yaml.safe_load(rules_file(runbooks="https://wiki.example/runbooks/"))["groups"]
    assert len({group["name"] for group in groups}) == len(groups)
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {alert.name for alert in alerts()}
    for alert in alerts():
        rule = rules[alert.name]
        assert rule["expr"] == alert.expression
        assert rule["labels"] == {"severity": alert.severity, "metric": alert.metric}
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/runbooks/{alert.name}.md"


def test_summary_names_wandb_key() -> None:
    """The summary of a headline alert names the key that the curve has in wandb."""
    for alert in alerts():
        if alert.keys:
            assert headline_row(alert.keys[0]).wandb_key in alert.summary
