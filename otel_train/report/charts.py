"""Line charts as inline SVG: drawn at any width without a script, with their words and numbers beside the picture.

The picture is stretched to the width there is, so all text is HTML around it and keeps its size on a phone. The table
under a chart holds its numbers; the script that shows values under the pointer reads them there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from otel_train.number_text import distinct_labels, exact_number, grouped_number, percent
from otel_train.read.curve_points import Point, Points, ends_of
from otel_train.report.curves import Bin, Stretch, bins, column_of, decimate, finite, is_dense, ticks
from otel_train.report.markup import Child, Html, join, tag
from otel_train.report.number_tables import numbers_below

WIDTH, HEIGHT = 1000.0, 100.0
"""Size of a picture, in its own units."""
STRIP = 3.0
"""The height of the mark below steps out of range."""
THIN = 4.0
"""The height of a healthy band of one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve."""

    label: str
    points: Sequence[Point]
    """With growing steps; values that are not finite are left out."""
    style: str = "main"
    """A class of the style sheet."""
    dotted: bool = False
    """Whether each point is a dot, for a curve without values between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A step on the axis that has a label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of curves."""

    title: str
    lines: Sequence[Line]
    description: str = ""
    """One sentence for readers who can't see it."""
    band: tuple[float, float] | None = None
    """The healthy values."""
    outside: Sequence[Stretch] = ()
    """The steps in which the first curve is not healthy."""
    marks: Sequence[Mark] = ()
    marks_label: str = ""
    """Meaning of the marks, for the legend."""
    steps: tuple[float, float] | None = None
    """First and last step of the axis; those of the curves unless given."""
    axis: str = "step"
    """Name of the axis."""
    names: Sequence[str] = ()
    """Labels of the positions 0, 1, 2 ... of the axis, where they are not numbers to be drawn to scale."""
    from_zero: bool = True
    """Whether the axis of values begins at 0 where no value is below."""
    share: bool = False
    """Whether values are shown as per cent."""
    columns: int = 500
    """Columns of the picture; a curve has at most four points in each, or is a band with its means."""
    small: bool = False

    def html(self) -> Html:
        """Return the chart as a <figure>."""
        return _figure(self)


def _figure(chart: Chart) -> Html:
    lines = [(line, finite(line.points)) for line in chart.lines]
    drawn = [points for _, points in lines if points]
    if not drawn:
        return tag("figure", tag("p", "No values.", class_="empty"), class_="chart")
    left, right = chart.steps or (min(points.steps[0] for points in drawn), max(points.steps[-1] for points in drawn))
    spans = [ends_of(points.values) if points else (math.inf, -math.inf) for _, points in lines]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    bottom, top, marks = _values_axis(chart, low, high)
    scale = _Scale(left, right, bottom, top)
    show = percent if chart.share else grouped_number
    picture = tag(
        "svg",
        tag("title", chart.title),
        tag("desc", _description(chart, lines, spans, show)),
        _backdrop(chart, scale),
        [_horizontal_line(scale.y(value)) for value in marks],
        [_curve(line, points, scale, chart.columns) for line, points in lines],
        [_vertical_line(scale.x(mark.at)) for mark in chart.marks],
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
    )
    below = _steps_axis(chart, left, right)
    return tag(
        "figure",
        tag(
            "div",
            tag(
                "div",
                [_y_label(scale, *label) for label in zip(marks, distinct_labels(marks, show), strict=True)],
                class_="ys",
                aria_hidden="true",
            ),
            tag("div", picture, [_mark_label(scale, mark) for mark in chart.marks], class_="plot"),
            tag("div", [_x_label(scale, *label) for label in below], class_="xs", aria_hidden="true"),
            class_="frame",
        ),
        _legend(chart, dense=any(_is_band(line, points, scale, chart.columns) for line, points in lines)),
        numbers_below(
            chart.title,
            [(line.label, points) for line, points in lines],
            axis=chart.axis,
            ends=(scale.left, scale.right),
            show=show,
            name_of=lambda step: _step_name(chart, step),
        ),
        class_="chart small" if chart.small else "chart",
    )


class _Scale:
    """Positions of steps and values in the picture."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.left, self.right, self.bottom, self.top = left, right, bottom, top

    def share(self, step: float) -> float:
        """Return a step's position from left to right, from 0 to 1."""
        return (step - self.left) / (self.right - self.left) if self.right > self.left else 0.5

    def x(self, step: float) -> float:
        return self.share(step) * WIDTH

    def y(self, value: float) -> float:
        share = value / (self.top - self.bottom) - self.bottom / (self.top - self.bottom)
        return (1 - min(1.0, max(0.0, share))) * HEIGHT


def _values_axis(chart: Chart, low: float, high: float) -> tuple[float, float, list[float]]:
    """Return the axis of values and its ticks: all values, and the band's ends where the curve stays visible."""
    if chart.from_zero and low >= 0:
        low = 0.0
    for end in chart.band or ():
        reach = max(high, end) - min(low, end)
        if math.isfinite(end) and (high - low >= reach / 12 or high == low):
            low, high = min(low, end), max(high, end)
    if chart.share:
        low, high = 0.0, max(high, 0.1)
    if low == high:
        around = abs(high) or 1.0
        low, high = (0.0, 2 * high) if high > 0 else (low - around, high + around)
    margin = 0.06 * (high - low)
    high += margin
    if low < 0 or not chart.from_zero:
        low -= margin
    return low, high, ticks(low, high, 3 if chart.small else 4)


def _steps_axis(chart: Chart, left: float, right: float) -> list[tuple[float, str]]:
    """Return the ticks of the other axis with their labels."""
    if chart.names:
        return [(float(index), name) for index, name in enumerate(chart.names)][:: -(-len(chart.names) // 6)]
    at = ticks(left, right, 4 if chart.small else 6, whole=True)
    return list(zip(at, distinct_labels(at, grouped_number), strict=True))


def _backdrop(chart: Chart, scale: _Scale) -> Html:
    """Draw the healthy band, and the steps outside it."""
    parts: list[Html] = []
    for first, last in _by_column(chart.outside, scale, chart.columns):
        parts.append(_rect("outside", first, 0, last - first, HEIGHT))
        parts.append(_rect("strip", first, HEIGHT + 2, last - first, STRIP))
    if chart.band is not None:
        low, high = chart.band
        top, bottom = scale.y(high), scale.y(low)
        if low == high and scale.bottom < low < scale.top:
            top, bottom = top - THIN / 2, bottom + THIN / 2
        parts.append(_rect("band", 0, top, WIDTH, bottom - top))
        parts += [_horizontal_line(scale.y(end), "edge") for end in (low, high) if scale.bottom < end < scale.top]
    return join(parts)


def _by_column(outside: Sequence[Stretch], scale: _Scale, columns: int) -> list[tuple[float, float]]:
    """Return the columns that the stretches touch, joined where they meet, in the picture's units."""
    column = column_of(scale.left, scale.right, columns)
    joined: list[tuple[int, int]] = []
    for first, last in outside:
        start, end = column(first), column(last) + 1
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    width = WIDTH / columns
    return [(start * width, end * width) for start, end in joined]


def _rect(style: str, x: float, y: float, width: float, height: float) -> Html:
    return tag("rect", class_=style, x=f"{x:.4g}", y=f"{y:.4g}", width=f"{width:.4g}", height=f"{height:.4g}")


def _horizontal_line(y: float, style: str = "grid") -> Html:
    return tag("path", class_=style, d=f"M0 {y:.4g}H{WIDTH:g}")


def _vertical_line(x: float) -> Html:
    return tag("path", class_="mark", d=f"M{x:.5g} 0V{HEIGHT:g}")


def _curve(line: Line, points: Points, scale: _Scale, columns: int) -> Html | None:
    if _is_band(line, points, scale, columns):
        return _envelope(line, bins(points, scale.left, scale.right, columns), scale)
    pieces = [points] if line.dotted and points else decimate(points, scale.left, scale.right, columns)
    if not pieces:
        return None
    curve = tag("path", class_=f"line {line.style}" + (" thin" if line.dotted else ""), d=_path(pieces, scale))
    if not line.dotted:
        return curve
    dots = "".join(f"M{scale.x(step):.5g} {scale.y(value):.4g}h0" for step, value in points)
    return join(curve, tag("path", class_=f"line {line.style} dots", d=dots))


def _is_band(line: Line, points: Sequence[Point], scale: _Scale, columns: int) -> bool:
    return not line.dotted and is_dense(points, scale.left, scale.right, columns)


def _path(pieces: Sequence[Sequence[Point]], scale: _Scale, end: str = "") -> str:
    path = []
    for piece in pieces:
        positions = [f"{scale.x(step):.5g} {scale.y(value):.4g}" for step, value in piece]
        path.append("M" + "L".join(positions) + ("h0" if len(piece) == 1 else "") + end)
    return "".join(path)


def _envelope(line: Line, pieces: Sequence[Sequence[Bin]], scale: _Scale) -> Html:
    """Draw a curve of many points: the area between the lowest and the highest of each column, and their means."""
    area = []
    for piece in pieces:
        above = [(bin_.step, bin_.highest) for bin_ in piece]
        below = [(bin_.step, bin_.lowest) for bin_ in reversed(piece)]
        area.append([*above, *below])
    means = [[(bin_.step, bin_.mean) for bin_ in piece] for piece in pieces]
    return join(
        tag("path", class_=f"envelope {line.style}", d=_path(area, scale, "Z")),
        tag("path", class_=f"line {line.style}", d=_path(means, scale)),
    )


def _y_label(scale: _Scale, value: float, label: str) -> Html:
    return tag("span", label, style=f"top:{scale.y(value):.4g}%")


def _x_label(scale: _Scale, value: float, label: str) -> Html:
    share = scale.share(value)
    edge = "first" if share < 0.06 else "last" if share > 0.94 else None
    return tag("span", label, class_=edge, style=f"left:{100 * share:.4g}%")


def _mark_label(scale: _Scale, mark: Mark) -> Html:
    share = scale.share(mark.at)
    side = "before" if share > 0.5 else None
    return tag("span", mark.label, class_=f"named {side or ''}".strip(), style=f"left:{100 * share:.4g}%")


def _legend(chart: Chart, *, dense: bool) -> Html:
    entries: list[Child] = [
        tag("li", _swatch(f"line {line.style}"), tag("span", line.label)) for line in chart.lines if line.points
    ]
    if dense and not chart.small:
        entries.append(tag("li", tag("i", class_="swatch envelope"), "lowest to highest"))
    if chart.band is not None and not chart.small:
        entries.append(tag("li", tag("i", class_="swatch band"), "healthy"))
    if chart.outside and not chart.small:
        entries.append(tag("li", tag("i", class_="swatch outside"), "out of range"))
    if chart.marks_label:
        entries.append(tag("li", _swatch("mark"), tag("span", chart.marks_label)))
    return tag("figcaption", tag("ul", entries, class_="legend"), tag("span", chart.axis, class_="axis"))


def _swatch(style: str) -> Html:
    return tag("svg", tag("path", class_=style, d="M1 4H27"), viewBox="0 0 28 8", class_="swatch", aria_hidden="true")


def _description(
    chart: Chart,
    lines: Sequence[tuple[Line, Points]],
    spans: Sequence[tuple[float, float]],
    show: Callable[[float], str],
) -> str:
    sentences = [chart.description] if chart.description else []
    for (line, points), (low, high) in zip(lines, spans, strict=True):
        if points:
            sentences.append(
                f"{line.label}: {show(low)} to {show(high)}, {show(points.values[-1])} at "
                f"{chart.axis} {_step_name(chart, points.steps[-1])}."
            )
    return " ".join(sentences)


def _step_name(chart: Chart, step: float) -> str:
    return chart.names[int(step)] if chart.names else exact_number(step)
