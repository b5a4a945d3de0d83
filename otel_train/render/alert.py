"""An alert: a condition in PromQL, and the text for the one who is woken by it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How soon somebody should look."""

    CRITICAL = "critical"
    """Now: the job trains on the wrong thing, or not at all, and what it computes meanwhile is wasted."""
    WARNING = "warning"
    """In working hours: training is worse or slower than it could be, or only its telemetry suffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert."""

    name: str
    """Its name in Prometheus, and that of its page in docs/runbooks."""
    group: str
    """The area; each is a rule group."""
    metric: str
    """Name of its metric, which is a label."""
    keys: tuple[str, ...] = ()
    """The headline keys (wandb) that it judges; empty for the pipeline's own."""
    expression: str
    """PromQL; each series that it returns fires."""
    hold: str
    """How long the condition must last."""
    severity: Severity
    summary: str
    """One line with the values, as a Prometheus template."""
    description: str
    """Meaning of the metric, and what to do."""
