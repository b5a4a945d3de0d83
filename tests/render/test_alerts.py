"""The alerts, and what stands behind each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from otel_train.catalogue import HEADLINE, HealthyRange, Per, Statistic, headline_row, healthy_range
from otel_train.exceptions import ConfigurationError
from otel_train.render import alerts, dashboards, rules_file
from otel_train.render.figures import figure
from otel_train.render.runbooks import panels_of, prose
from otel_train.trainer import load_config, shipped_configs


def replaced(key: str, wanted: HealthyRange) -> Callable[[str], HealthyRange]:
    return lambda each: wanted if each == key else healthy_range(each)


def test_each_headline_metric_has_one_alert() -> None:
    """No headline metric is without an alert, and none has two."""
    assert [alert.metric for alert in alerts() if alert.keys] == [row.name for row in HEADLINE]


def test_each_alert_has_a_page_and_a_panel() -> None:
    """Whoever is woken finds prose for exactly the alerts there are, and a panel to open."""
    assert {alert.name for alert in alerts()} == set(prose())
    assert [alert.name for alert in alerts() if not panels_of(alert, dashboards())] == []


@pytest.mark.parametrize("path", shipped_configs().values(), ids=lambda path: path.stem)
def test_what_a_shipped_configuration_expects_has_an_alert(path: Path) -> None:
    """Each key that a configuration is to drive out of its range is judged by an alert."""
    judged = {key for alert in alerts() for key in alert.keys}
    assert set(load_config(path).expect.unhealthy) <= judged


def test_a_job_s_own_range_is_what_its_alert_compares_with() -> None:
    """An override changes bound and statistic; a range that holds everything needs no alert."""
    own = HealthyRange(high=7.0, statistic=Statistic.MEAN)
    changed = {alert.metric: alert.expression for alert in alerts(replaced("stream_mixing/staleness_max", own))}
    assert "avg_over_time(" in changed["stream_mixing.staleness_max"]
    assert "> 7\n" in changed["stream_mixing.staleness_max"]
    every = alerts(replaced("stream_mixing/staleness_max", HealthyRange()))
    assert "stream_mixing.staleness_max" not in [alert.metric for alert in every]


def test_a_maximum_that_may_differ_is_not_judged() -> None:
    """A range whose `worst` is false is for the total only."""
    keys = {alert.metric: alert.keys for alert in alerts() if alert.keys}
    assert keys["ledger.fresh_writes"] == ("ledger/fresh_writes",)
    assert keys["ledger.evictions"] == ("ledger/evictions", "ledger/evictions_max")


@pytest.mark.parametrize("per", Per)
def test_a_gauge_is_divided_as_its_range_says(per: Per) -> None:
    """The divisor stands behind the gauge's figure."""
    expression = figure("stream_mixing/active_readers", HealthyRange(high=1.0, per=per))
    value = "avg_over_time(stream_mixing_cluster_active_readers[10m])"
    divisors = {
        Per.CLUSTER: "",
        Per.RANK: " / last_over_time(train_cluster_ranks[10m])",
        Per.PICK: " / (increase(stream_mixing_cluster_picks_total[10m]) / delta(train_step[10m]))",
    }
    assert expression == value + divisors[per]


def test_a_range_that_increases_do_not_tell_is_refused() -> None:
    """An alert can't know the largest count of an interval; the message says what to set."""
    wanted = HealthyRange(high=1.0, statistic=Statistic.MAX)
    with pytest.raises(ConfigurationError, match=r"health\.ledger/evictions: .* set statistic to mean"):
        rules_file(replaced("ledger/evictions", wanted))


def test_the_rule_file_holds_every_alert_with_its_page() -> None:
    """Each rule has its severity, its metric and a link below the given address."""
    groups = yaml.safe_load(rules_file(runbooks="https://wiki.example/runbooks/"))["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {alert.name for alert in alerts()}
    for alert in alerts():
        rule = rules[alert.name]
        assert rule["expr"] == alert.expression
        assert rule["labels"] == {"severity": alert.severity, "metric": alert.metric}
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/runbooks/{alert.name}.md"


def test_a_summary_names_the_headline_s_wandb_key() -> None:
    """The one who is woken sees the name that the curves have in wandb."""
    for alert in alerts():
        if alert.keys:
            assert headline_row(alert.keys[0]).wandb_key in alert.summary
