"""A dashboard as plain data: its panels' queries can be listed and run without Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from otel_train.catalogue import HealthyRange, Metric
from otel_train.catalogue.external import ExternalMetric
from otel_train.render.promql import ATTEMPT, RANK, RUN

RUN_VARIABLE, ATTEMPT_VARIABLE, RANK_VARIABLE = "run", "attempt", "rank"
CLUSTER = f'{{{RUN}="${RUN_VARIABLE}",{ATTEMPT}=~"${ATTEMPT_VARIABLE}"}}'
"""Matchers of the cluster-wide series of the chosen run and attempts."""
RANKS = f'{{{RUN}="${RUN_VARIABLE}",{ATTEMPT}=~"${ATTEMPT_VARIABLE}",{RANK}=~"${RANK_VARIABLE}"}}'
"""Matchers of the chosen ranks' own series."""
RATE = "$__rate_interval"
BY_RANK = f"rank {{{{{RANK}}}}}"
"""A legend."""
SHOWN_RANKS = 16
"""Ranks that a panel shows at most: a job may have thousands."""


class Kind(StrEnum):
    """How a panel looks."""

    LINES = "timeseries"
    POINTS = "points"
    NUMBER = "stat"
    BARS = "bargauge"
    HEATMAP = "heatmap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One query of a panel."""

    expression: str
    legend: str
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel."""

    title: str
    """Names it within its dashboard; its id follows from it."""
    shows: tuple[Metric | ExternalMetric, ...]
    """The metrics whose descriptions and remedies are its help text."""
    targets: tuple[Target, ...]
    unit: str
    """Grafana's name of the unit."""
    note: str = ""
    """Addition to their help text."""
    healthy: HealthyRange | None = None
    """Range whose area is drawn; every target is normalised as it says."""
    kind: Kind = Kind.LINES
    width: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A row of panels under a title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One dashboard."""

    name: str
    """The file's name; the uid follows from it."""
    title: str
    description: str
    sections: tuple[Section, ...]

    @property
    def uid(self) -> str:
        """Identifier of the dashboard in links."""
        return f"otel-train-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for section in self.sections for panel in section.panels)
