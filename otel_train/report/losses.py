"""The page's charts of scalars by source: which source's loss is rising?"""

from __future__ import annotations

from otel_train.number_text import grouped_number
from otel_train.read.curve_points import Points
from otel_train.report.charts import Chart, Line
from otel_train.report.curves import finite
from otel_train.report.markup import Html, outside, tag
from otel_train.report.run import ReportRun
from otel_train.report.sections import MOST_CHARTS, section
from otel_train.report.verdict import steps_of


def losses(run: ReportRun, other: ReportRun | None) -> Html | None:
    """Return each source's curve of a scalar beside the whole, the one that has risen most first."""
    own, theirs = run.history.by_source(), other.history.by_source() if other else {}
    pairs = [(whole, key) for whole in dict.fromkeys([*own, *theirs]) for key in _keys(whole, own, theirs)]
    curves = [(_rise(_points(run, key)), whole, key) for whole, key in pairs]
    if not curves:
        return None
    curves.sort(key=lambda curve: (curve[1], -curve[0]))
    tiles = [_tile(run, other, whole, key) for _, whole, key in curves[:MOST_CHARTS]]
    more = len(curves) - len(tiles)
    return section(
        "sources",
        "Loss by source",
        tag("div", tiles, class_="grid"),
        tag("p", f"{more} further sources have risen less.", class_="quiet") if more else None,
        intro="Means over the rows of all ranks, weighted as they were given. The source that has risen most, or "
        "fallen least, from the run's second quarter to its last comes first.",
    )


def _keys(whole: str, *histories: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(key for keys in histories for key in keys.get(whole, ())))


def _points(run: ReportRun, key: str) -> Points:
    return run.history.cluster.curve(key)


def _rise(points: Points) -> float:
    """Return by how much the mean of the last quarter lies above that of the second one."""
    values = finite(points).values
    quarter = max(1, len(values) // 4)
    last, before = values[-quarter:], values[quarter : 2 * quarter] or values[:quarter]
    return sum(last) / len(last) - sum(before) / len(before) if values else 0.0


def _tile(run: ReportRun, other: ReportRun | None, whole: str, key: str) -> Html:
    points = _points(run, key)
    label = "A, " if other else ""
    lines = [
        Line(label=f"{label}{key.removeprefix(f'{whole}/')}", points=points),
        Line(label=f"{label}whole", points=_points(run, whole), style="target"),
    ]
    if other:
        lines.append(Line(label=f"B, {key.removeprefix(f'{whole}/')}", points=_points(other, key), style="other"))
    chart = Chart(title=key, lines=lines, steps=steps_of(run, other), small=True, columns=200, from_zero=False)
    now = tag("p", tag("strong", grouped_number(points[-1][1])), class_="keyfigure") if points else None
    return tag("article", tag("h3", outside(key)), now, chart.html(), class_="tile")
