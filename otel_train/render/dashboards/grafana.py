"""Turn a dashboard's plain data into Grafana's JSON, by way of the types of grafana-foundation-sdk."""

from __future__ import annotations

import json
import math
import zlib

from grafana_foundation_sdk.builders import bargauge, heatmap, stat, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from otel_train.catalogue import HealthyRange, rows
from otel_train.render.dashboards.spec import (
    ATTEMPT_VARIABLE,
    CLUSTER,
    RANK_VARIABLE,
    RUN_VARIABLE,
    Dashboard,
    Kind,
    Panel,
    Target,
)
from otel_train.render.promql import ATTEMPT, OF_ATTEMPT, RANK, RUN, by, rank_series

DATASOURCE_VARIABLE = "datasource"
DATASOURCE = models.DataSourceRef("prometheus", f"${{{DATASOURCE_VARIABLE}}}")
TAG = "otel_train"
HEIGHT = 8
SPAN_NULLS_MS = 600_000
"""Points as far apart as this are joined: a step may take minutes."""

_GREEN, _RED = "green", "red"
_PanelBuilder = timeseries.Panel | stat.Panel | bargauge.Panel | heatmap.Panel


def dashboard_json(dashboard: Dashboard) -> str:
    """Return the file that Grafana's provisioning reads, ending in a newline; the same for the same data."""
    builder = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG])
        .timezone("browser")
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .links([_links()])
        .variables(_variables())
        .annotations([_Annotation()])
    )
    for section in dashboard.sections:
        builder.with_row(builders.Row(section.title).id(stable_id(f"section {section.title}")))
        for panel in section.panels:
            builder.with_panel(_panel(panel))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def stable_id(title: str) -> int:
    """Return the id of a panel: it follows from the title, so that links to it outlive panels put before it."""
    return zlib.crc32(title.encode()) >> 1


def _links() -> builders.DashboardLink:
    return (
        builders.DashboardLink("otel_train")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )


def _variables() -> list[Builder[models.VariableModel]]:
    step = rank_series(rows.STEP)
    of_run = f'{RUN}="${RUN_VARIABLE}"'
    all_values = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    datasource = builders.DatasourceVariable(DATASOURCE_VARIABLE).label("Data source").type("prometheus")
    run = _values(RUN_VARIABLE, "Run", step, RUN).sort(models.VariableSort.ALPHABETICAL_ASC)
    attempt = _values(ATTEMPT_VARIABLE, "Attempt", f"{step}{{{of_run}}}", ATTEMPT).sort(
        models.VariableSort.NUMERICAL_DESC
    )
    rank = _values(RANK_VARIABLE, "Rank", f"{step}{CLUSTER}", RANK).sort(models.VariableSort.NUMERICAL_ASC)
    # One pattern instead of every value: the list of a large job's ranks would be too long for a query.
    several = [
        variable.multi(True).include_all(True).all_value(".+").current(all_values) for variable in (attempt, rank)
    ]
    return [datasource, run, *several]


def _values(name: str, label: str, series: str, of_label: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(f"label_values({series}, {of_label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


class _Annotation(builders.AnnotationQuery):
    """A mark where an attempt of the run begins.

    The sidecar of rank 0 sends live points every 10 s; where there were none for an hour, an attempt begins.
    """

    def build(self) -> models.AnnotationQuery:
        lag = f'{rank_series(rows.EXPORT_LAG)}{{{RUN}="${RUN_VARIABLE}",{RANK}="0"}}'
        began = f"present_over_time({lag}[1m]) unless present_over_time({lag}[1h] offset 1m)"
        return _PrometheusAnnotation(
            name="Attempts begin",
            datasource=DATASOURCE,
            enable=True,
            icon_color="blue",
            expr=by("count", OF_ATTEMPT, began),
        )


class _PrometheusAnnotation(models.AnnotationQuery):
    """An annotation from Prometheus, with the fields that the SDK's type lacks."""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "step": "1m",
            "titleFormat": "An attempt begins",
            "textFormat": f"attempt {{{{{ATTEMPT}}}}} of {{{{{RUN}}}}}",
        }


def _panel(panel: Panel) -> _PanelBuilder:
    builder: _PanelBuilder
    if panel.kind is Kind.NUMBER:
        builder = stat.Panel()
    elif panel.kind is Kind.BARS:
        builder = bargauge.Panel().orientation(common.VizOrientation.HORIZONTAL)
    elif panel.kind is Kind.HEATMAP:
        builder = _heatmap()
    else:
        builder = _lines(panel)
    builder.id(stable_id(panel.title)).title(panel.title).description(help_text(panel)).datasource(DATASOURCE)
    builder.span(panel.width).height(HEIGHT).unit(panel.unit).thresholds(_thresholds(panel.healthy))
    for index, target in enumerate(panel.targets):
        builder.with_target(_target(target, chr(ord("A") + index), panel.kind))
    return builder


def _lines(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .axis_soft_min(0)
        .line_width(2)
        .fill_opacity(0)
        .span_nulls(SPAN_NULLS_MS)
        .show_points(common.VisibilityMode.AUTO)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if panel.kind is Kind.POINTS:
        builder.draw_style(common.GraphDrawStyle.POINTS).point_size(5)
    if panel.healthy is not None:
        builder.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.AREA)
        )
    for index, target in enumerate(panel.targets):
        if target.dashed:
            style = models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]})
            width = models.DynamicConfigValue("custom.lineWidth", 1)
            builder.override_by_query(chr(ord("A") + index), [style, width])
    return builder


def _heatmap() -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("short").axis_label("entries"))
    )


def _thresholds(healthy: HealthyRange | None) -> builders.ThresholdsConfig:
    """Return the steps of colour: red outside of the range."""
    steps = [models.Threshold(value=None, color=_GREEN)]
    if healthy is not None and healthy.low > 0:
        steps = [models.Threshold(value=None, color=_RED), models.Threshold(value=healthy.low, color=_GREEN)]
    if healthy is not None and math.isfinite(healthy.high):
        # A step begins at its value, while a range holds its ends: it matters where it has one value only.
        high = healthy.high if healthy.high > healthy.low else math.nextafter(healthy.high, math.inf)
        steps.append(models.Threshold(value=high, color=_RED))
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _target(target: Target, reference: str, kind: Kind) -> prometheus_builders.Dataquery:
    builder = (
        prometheus_builders.Dataquery()
        .expr(target.expression)
        .legend_format(target.legend)
        .ref_id(reference)
        .datasource(DATASOURCE)
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
    )
    if kind is Kind.HEATMAP:
        builder.format(prometheus_models.PromQueryFormat.HEATMAP)
    return builder.instant() if kind in (Kind.BARS, Kind.NUMBER) else builder.range()


def help_text(panel: Panel) -> str:
    """Return a panel's help text: the meaning of its metrics, and what to do."""
    parts = [part for metric in panel.shows for part in (metric.description, metric.remedy) if part]
    return " ".join([*parts, panel.note]).strip()
