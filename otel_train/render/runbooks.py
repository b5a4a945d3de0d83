"""The page of each alert: its meaning, its effect on training, where to look, and what to do.

The prose is in runbooks.toml; names, conditions and panels come from the catalogue, the alerts and the dashboards.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from otel_train.catalogue import JUDGED, Instrument, Metric, Reduction, external, headline_row, rows
from otel_train.catalogue.external import ExternalMetric
from otel_train.render.alert import Alert
from otel_train.render.dashboards import Dashboard, Panel
from otel_train.render.dashboards.grafana import stable_id
from otel_train.render.health_expressions import WINDOW
from otel_train.render.promql import cluster_series, over, rank_series

_NOTICE = "<!-- Made by `otel-train render`; edit otel_train/render/runbooks.toml instead. -->"
_LISTED_RANKS = 5


@dataclass(frozen=True, slots=True)
class _Names:
    """Names of a row that the prose may use: `{EVICTIONS}`, `{EVICTIONS.top}`."""

    row: Metric

    def __str__(self) -> str:
        return f"`{self.row.name}`"

    @property
    def key(self) -> str:
        return f"`{self.row.wandb_key}`"

    @property
    def series(self) -> str:
        return f"`{rank_series(self.row)}`"

    @property
    def cluster(self) -> str:
        assert self.row.reduction is not Reduction.LOCAL, f"{self.row.name} has no cluster-wide series"
        return f"`{cluster_series(self.row)}`"

    @property
    def top(self) -> str:
        return f"`topk({_LISTED_RANKS}, {self._value()})`"

    @property
    def bottom(self) -> str:
        return f"`bottomk({_LISTED_RANKS}, {self._value()})`"

    def _value(self) -> str:
        series = rank_series(self.row)
        return over("increase", series, WINDOW) if self.row.instrument is Instrument.COUNTER else series


@dataclass(frozen=True, slots=True)
class _ExternalNames:
    """Names of another program's metric."""

    row: ExternalMetric

    @property
    def series(self) -> str:
        return f"`{self.row.name}`"


def prose() -> dict[str, dict[str, str]]:
    """Return the texts by alert and section, as they are in runbooks.toml."""
    return tomllib.loads((resources.files("otel_train.render") / "runbooks.toml").read_text(encoding="utf-8"))


def runbook_page(alert: Alert, dashboards: tuple[Dashboard, ...]) -> str:
    """Return the page of an alert, ending in a newline.

    Args:
        alert: The alert.
        dashboards: Where to look for panels that show its metric.
    """
    names = {name: _Names(row) for name, row in vars(rows).items() if isinstance(row, Metric)}
    others = {name: _ExternalNames(row) for name, row in vars(external).items() if isinstance(row, ExternalMetric)}
    text = {section: template.strip().format(**names, **others) for section, template in prose()[alert.name].items()}
    panels = [_panel(dashboard, panel) for dashboard, panel in panels_of(alert, dashboards)]
    lines = [
        f"# {alert.name}",
        "",
        _NOTICE,
        "",
        _facts(alert),
        "",
        "## What it means",
        "",
        text["meaning"],
        "",
        "## What it does to training",
        "",
        text["effect"],
        "",
        "## How to look",
        "",
        *panels,
        text["look"],
        "- What the numbers mean, with ranges and remedies: `otel-train catalogue`.",
        "",
        "The condition:" if alert.hold == "0s" else f"The condition, which must hold for {alert.hold}:",
        "",
        "```promql",
        alert.expression.strip("\n"),
        "```",
        "",
        "## What to do",
        "",
        text["do"],
    ]
    return "\n".join(lines) + "\n"


def runbook_index(alerts: tuple[Alert, ...]) -> str:
    """Return the page that lists all alerts, ending in a newline."""
    lines = [
        "# Runbooks",
        "",
        _NOTICE,
        "",
        "One page for each alert in [prometheus/otel_train.rules.yaml](../../prometheus/otel_train.rules.yaml).",
        "**critical** is for now: what the job computes meanwhile is wasted. **warning** is for working hours.",
        "",
        "| alert | severity | what it means |",
        "|---|---|---|",
        *(f"| [{alert.name}]({alert.name}.md) | {alert.severity} | {_first_sentence(alert)} |" for alert in alerts),
    ]
    return "\n".join(lines) + "\n"


def panels_of(alert: Alert, dashboards: tuple[Dashboard, ...]) -> list[tuple[Dashboard, Panel]]:
    """Return the panels that show an alert's metric."""
    return [
        (dashboard, panel)
        for dashboard in dashboards
        for panel in dashboard.panels
        if alert.metric in (metric.name for metric in panel.shows)
    ]


def _panel(dashboard: Dashboard, panel: Panel) -> str:
    where = f"/d/{dashboard.uid}?viewPanel={stable_id(panel.title)}"
    return f"- Grafana, *{dashboard.title}*, panel *{panel.title}*: `{where}`"


def _facts(alert: Alert) -> str:
    facts = [f"**{alert.severity}**, metric `{alert.metric}`"]
    if alert.keys:
        facts.append("wandb " + ", ".join(f"`{key}`" for key in alert.keys))
        healthy = headline_row(alert.keys[0]).healthy
        assert healthy is not None, "every judged row has a range"
        facts.append(f"healthy is {healthy} unless the job says otherwise")
    return "; ".join(facts) + "."


def _first_sentence(alert: Alert) -> str:
    row = next((metric for metric in JUDGED if metric.name == alert.metric), None)
    if row is not None and row.healthy is not None:
        return f"`{row.name}` is not {row.healthy}"
    return " ".join(prose()[alert.name]["meaning"].split()).partition(". ")[0].rstrip(".")
