"""The Grafana dashboards, read back through the types of grafana-foundation-sdk."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models

from otel_train.catalogue import JUDGED, HealthyRange, Per, rows
from otel_train.render import dashboards
from otel_train.render.dashboards import Dashboard, Section, dashboard_json, queries
from otel_train.render.dashboards.common_panels import headline_panel
from otel_train.render.dashboards.grafana import stable_id

register_default_plugins()
BUILT_IN = {"__rate_interval", "__range", "__interval"}
"""Grafana's own variables."""
EACH = pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)


def loaded(dashboard: Dashboard) -> models.Dashboard:
    return models.Dashboard.from_json(json.loads(dashboard_json(dashboard)))


def panels(dashboard: Dashboard) -> list[Any]:
    return [panel for panel in loaded(dashboard).panels or [] if isinstance(panel, models.Panel)]


@EACH
def test_grafana_types_read_dashboard_back(dashboard: Dashboard) -> None:
    """A dashboard that is read back through the SDK's types is written the same, apart from annotations."""

    def without_empty(table: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if value != {}}

    again = json.dumps(loaded(dashboard), default=lambda model: model.to_json())
    before, after = (json.loads(text, object_hook=without_empty) for text in (dashboard_json(dashboard), again))
    assert before.pop("annotations")
    assert after.pop("annotations")
    assert after == before


@EACH
def test_panels_do_not_overlap(dashboard: Dashboard) -> None:
    """Panels have ids of their own, do not overlap, and stay within the 24 columns."""
    every = loaded(dashboard).panels or []
    ids = [panel.id_val for panel in every]
    assert len(set(ids)) == len(ids) == len(dashboard.panels) + len(dashboard.sections)
    cells = [
        (column, line)
        for panel in every
        if (grid := panel.grid_pos) is not None
        for column, line in itertools.product(range(grid.x, grid.x + grid.w), range(grid.y, grid.y + grid.h))
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


@EACH
def test_queries_use_known_variables(dashboard: Dashboard) -> None:
    """Targets and panels name the data source by its variable, and queries use no unknown variable."""
    variables = {variable.name for variable in loaded(dashboard).templating.list_val or []}
    assert variables == {"datasource", "run", "attempt", "rank"}
    for panel in panels(dashboard):
        assert {source.datasource.uid for source in (panel, *panel.targets)} == {"${datasource}"}
        used = {name for target in panel.targets for name in re.findall(r"\$\{?(\w+)", target.expr)}
        assert used <= variables | BUILT_IN


@EACH
def test_panels_explain_their_metrics(dashboard: Dashboard) -> None:
    """Each panel has a unit and the description of what it shows, with the remedy."""
    by_title = {panel.title: panel for panel in panels(dashboard)}
    for expected in dashboard.panels:
        panel = by_title[expected.title]
        assert panel.field_config.defaults.unit
        for metric in expected.shows:
            assert metric.description in panel.description
            assert metric.remedy in panel.description


def test_judged_panels_draw_their_range() -> None:
    """Each metric with a healthy range has a panel that draws the area of its range."""
    shown = {
        row.name
        for row in JUDGED
        for dashboard in dashboards()
        for panel in dashboard.panels
        if row in panel.shows and panel.healthy == row.healthy
    }
    assert shown == {row.name for row in JUDGED}


def test_area_outside_range_is_red() -> None:
    """The area below and above a range is red, and the value of a range with one value only is green."""
    panel = headline_panel("Picks", rows.PICKS, lambda _: HealthyRange(low=4.0, high=4.0, per=Per.RANK))
    one = Dashboard(name="one", title="One", description="", sections=(Section(title="", panels=(panel,)),))
    steps = panels(one)[0].field_config.defaults.thresholds.steps
    below, at, above = (
        [step.color for step in steps if step.value is None or step.value <= x][-1] for x in (3.9, 4.0, 4.1)
    )
    assert (below, at, above) == ("red", "green", "red")


def test_panel_ids_follow_titles() -> None:
    """A panel's id follows from its title: links to it in runbooks stay true."""
    ids = {panel.title: panel.id_val for dashboard in dashboards() for panel in panels(dashboard)}
    assert ids == {title: stable_id(title) for title in ids}


def test_queries_list_every_target() -> None:
    """The list of queries, which a test on a real Prometheus uses, has each target of each file."""
    listed = [(query.dashboard, query.panel, query.expression) for query in queries()]
    written = [
        (dashboard.name, panel.title, target.expr)
        for dashboard in dashboards()
        for panel in panels(dashboard)
        for target in panel.targets
    ]
    assert listed == written
