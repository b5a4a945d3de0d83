"""Give the panels of a wandb workspace: those of the Grafana dashboards whose metrics a run's rows have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from otel_train.catalogue import MAX_SUFFIX, RANK_SUFFIX, Metric, Per, rows
from otel_train.catalogue.external import LOSS
from otel_train.render.dashboards.spec import RANK_VARIABLE, Dashboard, Kind, Panel

STEP_KEY = rows.STEP.wandb_key
LOSS_KEY = "train/loss"
_DIVISORS = {Per.CLUSTER: "", Per.RANK: rows.RANKS.wandb_key, Per.PICK: rows.PICKS.wandb_key}
_RATIOS = {
    "False evictions' share of fresh writes": (rows.FALSE_EVICTIONS, rows.FRESH_WRITES),
    "Fill of all shards": (rows.LEDGER_ENTRIES, rows.LEDGER_CAPACITY),
    "Hits a pick": (rows.LEDGER_HITS, rows.PICKS),
}
"""Panels that show one metric by another."""
_TITLES = {"Tokens a second by modality": "Tokens of a row by modality"}
"""Titles of panels whose figure wandb can't compute, and which show what it is computed from."""
_OF_GRAFANA = frozenset({"Realised less target share, now"})
"""Panels whose figure wandb can't compute, and whose parts another one shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbPanel:
    """One line plot over `train/step`."""

    title: str
    keys: tuple[str, ...] = ()
    """Keys of the rows."""
    pattern: str = ""
    """Regular expression of further keys, which have a modality at their end."""
    expression: str = ""
    """The figure, where it is computed from keys, as wandb writes it."""
    healthy: str = ""
    """The range that needs nobody's attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbSection:
    """Panels under a title."""

    title: str
    panels: tuple[WandbPanel, ...]


def wandb_sections(boards: Iterable[Dashboard]) -> Iterator[WandbSection]:
    """Yield the sections of all dashboards that have panels for wandb.

    Left out is what rows do not hold: single ranks' values, histograms, and what describes the sending.

    Args:
        boards: The dashboards.
    """
    for board in boards:
        for section in board.sections:
            panels = tuple(made for panel in section.panels if (made := wandb_panel(panel)) is not None)
            if panels:
                name = board.title.partition(": ")[2] or board.title
                yield WandbSection(title=f"{name}: {section.title}", panels=panels)


def wandb_panel(panel: Panel) -> WandbPanel | None:
    """Return a dashboard's panel for wandb; None where rows have no values for it."""
    if panel.shows == (LOSS,):
        return WandbPanel(title=panel.title, keys=(LOSS_KEY,), pattern=f"^{re.escape(LOSS_KEY)}(/.+)?$")
    metrics = [metric for metric in panel.shows if isinstance(metric, Metric)]
    of_ranks = all(f"${RANK_VARIABLE}" in target.expression for target in panel.targets)
    if (
        panel.title in _OF_GRAFANA
        or of_ranks
        or len(metrics) < len(panel.shows)
        or not all(metric.wandb_key for metric in metrics)
    ):
        return None
    title = _TITLES.get(panel.title, panel.title)
    if panel.title in _RATIOS:
        first, second = (metric.wandb_key for metric in _RATIOS[panel.title])
        return WandbPanel(title=title, keys=(first, second), expression=_ratio(first, second))
    if metrics[0].attribute:
        keys = "|".join(re.escape(metric.wandb_key) for metric in metrics)
        return WandbPanel(title=title, pattern=f"^({keys})/.+$")
    return _plain(panel, title, [metric for metric in metrics if metric is not rows.STEP] or metrics)


def _plain(panel: Panel, title: str, metrics: list[Metric]) -> WandbPanel:
    keys = [metric.wandb_key for metric in metrics]
    if panel.kind is Kind.POINTS:  # the rank that had the largest
        keys = [f"{metric.wandb_key}{MAX_SUFFIX if metric.with_max else ''}{RANK_SUFFIX}" for metric in metrics]
    elif any("worst" in target.legend for target in panel.targets):
        keys += [f"{metric.wandb_key}{MAX_SUFFIX}" for metric in metrics if metric.with_max]
    healthy = panel.healthy
    divisor = _DIVISORS[healthy.per] if healthy is not None else ""
    if divisor and divisor not in keys:
        return WandbPanel(
            title=title, keys=(keys[0], divisor), expression=_ratio(keys[0], divisor), healthy=f"healthy: {healthy}"
        )
    return WandbPanel(title=title, keys=tuple(keys), healthy="" if healthy is None else f"healthy: {healthy}")


def _ratio(first: str, second: str) -> str:
    return f"${{{first}}} / ${{{second}}}"
