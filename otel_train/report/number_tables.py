"""The table of numbers under a chart, for readers who can't see it and for the page's script; tables that scroll."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from otel_train.read.curve_points import Point, Points, ends_of, part_of
from otel_train.report.curves import by_column, column_of
from otel_train.report.markup import Html, tag

Ends: TypeAlias = tuple[float, float]
"""The least and the largest of some numbers."""
ROWS = 100
"""Rows of the table; a longer curve is summed up in so many parts."""


def numbers_below(
    title: str,
    lines: Sequence[tuple[str, Sequence[Point]]],
    *,
    axis: str,
    ends: tuple[float, float],
    show: Callable[[float], str],
    name_of: Callable[[float], str],
) -> Html:
    """Return a chart's numbers, of each step or, where there are many, of each of `ROWS` parts.

    Args:
        title: The chart's.
        lines: Each curve's label and finite points.
        axis: Name of the axis of steps.
        ends: Its first and last step.
        show: Writes a value.
        name_of: Writes a step.
    """
    left, right = ends
    curves = [Points.of(points) for _, points in lines]
    steps = set[float]()
    every = all(len(curve) <= ROWS for curve in curves)
    if every:
        steps.update(*(curve.steps for curve in curves))
        every = len(steps) <= ROWS
    column = column_of(left, right, ROWS)

    def parts(curve: Points) -> dict[float, tuple[Ends, Ends]]:
        """Return the ends of the steps and of the values of each part."""
        if every:
            return {step: ((step, step), (value, value)) for step, value in zip(curve.steps, curve.values, strict=True)}
        return {
            column(curve.steps[start]): (
                (curve.steps[start], curve.steps[stop - 1]),
                ends_of(part_of(curve.values, start, stop)),
            )
            for start, stop in by_column(curve, left, right, ROWS)
        }

    cells = [parts(curve) for curve in curves]
    body = []
    for part in sorted(set().union(*cells)):
        steps_of = [values[part][0] for values in cells if part in values]
        first, last = min(first for first, _ in steps_of), max(last for _, last in steps_of)
        share = ((first + last) / 2 - left) / (right - left) if right > left else 0.5
        body.append(
            tag(
                "tr",
                tag("th", _span((first, last), name_of), scope="row"),
                [tag("td", _span(values[part][1], show) if part in values else "—") for values in cells],
                data_x=f"{share:.4g}",
            )
        )
    head = tag("tr", tag("th", axis, scope="col"), [tag("th", label, scope="col") for label, _ in lines])
    return tag(
        "details",
        tag("summary", "Numbers", tag("span", f" of {title}", class_="unseen")),
        scrolled(tag("table", tag("thead", head), tag("tbody", body)), f"Numbers of {title}"),
        class_="numbers",
    )


def scrolled(table: Html, name: str) -> Html:
    """Return a table in a box of its own, which scrolls where the table is wider than the page."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def _span(ends: Ends, show: Callable[[float], str]) -> str:
    low, high = map(show, ends)
    return low if low == high else f"{low} to {high}"
