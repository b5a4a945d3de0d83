"""The Grafana dashboards, and every query that they ask."""

from __future__ import annotations

from dataclasses import dataclass

from otel_train.catalogue import Ranges, healthy_range
from otel_train.render.dashboards.data_mixing import data_mixing
from otel_train.render.dashboards.grafana import dashboard_json
from otel_train.render.dashboards.ledger import ledger
from otel_train.render.dashboards.spec import Dashboard, Panel, Section, Target
from otel_train.render.dashboards.step_and_pipeline import step_and_pipeline

__all__ = ["Dashboard", "Panel", "Query", "Section", "Target", "dashboard_json", "dashboards", "queries"]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel, with Grafana's variables in it."""

    dashboard: str
    panel: str
    expression: str


def dashboards(health: Ranges = healthy_range) -> tuple[Dashboard, ...]:
    """Return the dashboards.

    Args:
        health: Gives the range of a headline key, for the thresholds.
    """
    return data_mixing(health), ledger(health), step_and_pipeline()


def queries(health: Ranges = healthy_range) -> list[Query]:
    """Return every query of every panel."""
    return [
        Query(dashboard.name, panel.title, target.expression)
        for dashboard in dashboards(health)
        for panel in dashboard.panels
        for target in panel.targets
    ]
