"""The page's charts of the user's own scalars, and of the duration of a step."""

from __future__ import annotations

import math

from otel_train.catalogue import CATALOGUE, MAX_SUFFIX, RANK_SUFFIX, rows
from otel_train.number_text import grouped_number
from otel_train.read.curve_points import are_within
from otel_train.read.history import History
from otel_train.report.charts import Chart, Line
from otel_train.report.markup import Html, outside, tag
from otel_train.report.run import ReportRun
from otel_train.report.sections import MOST_CHARTS, section
from otel_train.report.verdict import steps_of


def scalars(run: ReportRun, other: ReportRun | None) -> Html | None:
    """Return charts of the user's own scalars, and of the duration of a step."""
    timing = [rows.STEP_DURATION.wandb_key, rows.DATA_WAIT.wandb_key]
    names = [*own_scalars(run.history, other.history if other else None), *timing]
    tiles = []
    for name in names:
        own = run.history.cluster.curve(name)
        theirs = other.history.cluster.curve(name) if other else None
        if not own and not theirs:
            continue
        lines = [Line(label="A" if other else "cluster", points=own)]
        if theirs is not None:
            lines.append(Line(label="B", points=theirs, style="other"))
        broken = 0 if are_within(own.values, math.inf) else sum(not math.isfinite(value) for value in own.values)
        chart = Chart(
            title=name, lines=lines, steps=steps_of(run, other), small=True, columns=200, from_zero=name in timing
        )
        last = own[-1][1] if own else math.nan
        unit = " s" if name in timing else ""
        tiles.append(
            tag(
                "article",
                tag("h3", outside(name)),
                tag(
                    "p",
                    tag("strong", grouped_number(last)),
                    unit,
                    tag("span", f"{broken} not finite", class_="wish") if broken else None,
                    class_="keyfigure",
                ),
                chart.html(),
                class_="tile",
            )
        )
    if not tiles:
        return None
    more = len(tiles) - MOST_CHARTS
    return section(
        "training",
        "Training",
        tag("div", tiles[:MOST_CHARTS], class_="grid"),
        tag("p", f"{more} further scalars are not shown.", class_="quiet") if more > 0 else None,
        intro="What the job logs itself, over the ranks as it was declared, and what a step takes.",
    )


def own_scalars(*histories: History | None) -> list[str]:
    """Return the keys that are not the catalogue's, without those by source."""
    ours = {row.wandb_key for row in CATALOGUE if row.wandb_key}
    for history in filter(None, histories):
        ours.update(*history.by_source().values())
    keys = dict.fromkeys(key for history in histories if history is not None for key in sorted(history.cluster.values))
    return [key for key in keys if _base(key) not in ours]


def _base(key: str) -> str:
    of_rank = key.removesuffix(RANK_SUFFIX)
    for row in CATALOGUE:
        keys = (row.wandb_key, row.wandb_key + MAX_SUFFIX)
        if row.wandb_key and (of_rank in keys or (row.attribute and key.startswith(f"{row.wandb_key}/"))):
            return row.wandb_key
    return key
