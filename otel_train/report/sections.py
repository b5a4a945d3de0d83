"""The page's charts below the verdict: the healthy metrics, the mix, the ledger's capacity."""

from __future__ import annotations

import math

from otel_train.number_text import byte_size, grouped_number, percent
from otel_train.read.curve_points import Points
from otel_train.read.history import History, share_key, target_key
from otel_train.report.charts import Chart, Line, Mark
from otel_train.report.markup import Child, Html, outside, tag
from otel_train.report.number_tables import scrolled
from otel_train.report.run import ReportRun
from otel_train.report.verdict import badge, headline_chart, steps_of

MOST_CHARTS = 24
"""Bound on the charts of one kind: nobody would read a page with a thousand modalities."""


def section(name: str, title: str, *children: Child, intro: str = "") -> Html:
    """Return a part of the page that the navigation names."""
    return tag("section", tag("h2", title, id=name), tag("p", intro, class_="intro") if intro else None, *children)


def metrics(run: ReportRun, other: ReportRun | None) -> Html | None:
    """Return the headline metrics that have no card above, small."""
    shown = {topic.title for topic in run.wrong}
    tiles = []
    for row in run.rows:
        if row.wandb_key in shown:
            continue
        own = run.judged(row.wandb_key)
        theirs = other.judged(row.wandb_key) if other else None
        tiles.append(
            tag(
                "article",
                tag("h3", outside(row.wandb_key)),
                tag(
                    "p",
                    tag("strong", grouped_number(own.last)),
                    f" {own.unit}" if own.unit else None,
                    class_="keyfigure",
                ),
                tag("p", badge(run.severity(row.wandb_key)), f" {own.healthy_text}", class_="wish"),
                headline_chart(own, theirs, steps_of(run, other), small=True),
                class_="tile",
            )
        )
    if not tiles:
        return None
    intro = "Each in the unit of its range; the shaded band is healthy."
    return section(
        "metrics", "Metrics in their ranges" if shown else "The metrics", tag("div", tiles, class_="grid"), intro=intro
    )


def mix(run: ReportRun, other: ReportRun | None) -> Html | None:
    """Return each modality's share against its target over time, the one that is farthest off first."""
    names = list(dict.fromkeys([*run.history.modalities, *(other.history.modalities if other else ())]))
    modalities = []
    for name in names:
        newest = [_newest(run.history, name), _newest(other.history, name) if other else None]
        if any(newest):
            share, target = newest[0] or (math.nan, math.nan)
            off = share - target
            modalities.append((0.0 if math.isnan(off) else -abs(off), name, share, target))
    if not modalities:
        return None
    modalities.sort(key=lambda entry: entry[:1])
    tiles = []
    for _, name, share, target in modalities[:MOST_CHARTS]:
        lines = [
            Line(label="A, realised" if other else "realised", points=_points(run.history, share_key(name))),
            Line(
                label="A, target" if other else "target", points=_points(run.history, target_key(name)), style="target"
            ),
        ]
        theirs = _points(other.history, share_key(name)) if other else None
        if theirs:
            lines.append(Line(label="B, realised", points=theirs, style="other"))
        chart = Chart(
            title=f"Share of {name}", lines=lines, steps=steps_of(run, other), share=True, small=True, columns=200
        )
        now = "" if math.isnan(share + target) else f"{percent(share)}, target {percent(target)}"
        tiles.append(
            tag("article", tag("h3", outside(name)), tag("p", now, class_="keyfigure"), chart.html(), class_="tile")
        )
    more = len(modalities) - len(tiles)
    return section(
        "mix",
        "Shares against targets",
        tag("div", tiles, class_="grid"),
        tag("p", f"{more} further modalities are nearer to their targets.", class_="quiet") if more else None,
        intro="Realised picks over the mixer's horizon, against the targets; the largest difference first.",
    )


def _newest(history: History, name: str) -> tuple[float, float] | None:
    """Return a modality's newest share and target; None where its share is not known."""
    share, target = history.cluster.last(share_key(name)), history.cluster.last(target_key(name))
    return None if math.isnan(share) else (share, target)


def _points(history: History, key: str) -> Points:
    return history.cluster.curve(key)


def ledger(run: ReportRun, other: ReportRun | None) -> Html | None:
    """Return the miss-ratio curve, with the capacities that save most."""
    plans = [(plan, key) for plan, key in ((run.plan, "A"), (other.plan if other else None, "B")) if plan is not None]
    if not plans:
        return None
    plan, _ = plans[0]
    capacities = sorted({point.capacity for one, _ in plans for point in one.points})
    positions = {capacity: float(position) for position, capacity in enumerate(capacities)}
    lines = [
        Line(
            label=f"{key}, left" if other else "false evictions left",
            points=[(positions[point.capacity], 1 - point.saved) for point in one.points],
            style="main" if key == "A" else "other",
            dotted=True,
        )
        for one, key in plans
    ]
    labels: dict[int, list[str]] = {plan.capacity: ["now"]}
    for advice in plan.advice:
        labels.setdefault(advice.point.capacity, []).append(f"{100 * advice.share:.0f} %")
    marks = [Mark(at=positions[capacity], label=", ".join(words)) for capacity, words in labels.items()]
    chart = Chart(
        title="False evictions left, by capacity",
        description="Part of the false evictions that would be left with more entries a rank.",
        lines=lines,
        marks=marks,
        marks_label="now, and the capacities that save so much",
        axis="entries a rank",
        names=[f"{capacity:,}" for capacity in capacities],
        share=True,
    )
    sized = plan.entry_bytes is not None
    headings = ("saves", "entries a rank", "saved", *(("memory a rank",) if sized else ()))
    head = tag("tr", [tag("th", heading, scope="col") for heading in headings])
    body = [
        tag(
            "tr",
            tag("th", f"at least {100 * advice.share:.0f} %", scope="row"),
            tag("td", f"{advice.point.capacity:,}"),
            tag("td", percent(advice.point.saved)),
            tag("td", f"+ {byte_size(advice.point.extra_bytes)}") if advice.point.extra_bytes is not None else None,
        )
        for advice in plan.advice
    ]
    caveats = [tag("li", f"Estimates: {caveat}.") for caveat in plan.caveats]
    return section(
        "ledger",
        "What more ledger capacity would save",
        tag(
            "div",
            tag("div", chart.html(), class_="sight"),
            tag(
                "div",
                tag("p", plan.remedy()) if plan.advice else None,
                scrolled(tag("table", tag("thead", head), tag("tbody", body)), "Capacities"),
                tag("ul", caveats) if caveats else None,
                class_="words",
            ),
            class_="card plain",
        ),
        intro=f"{grouped_number(plan.false_evictions)} false evictions at {plan.capacity:,} entries a rank.",
    )
