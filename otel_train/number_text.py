"""Numbers as text: for a terminal's columns, for sentences and for pages; also time spans, sizes and curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

NUMBER_WIDTH = 7
"""Characters that `short_number` and `duration` take at most."""
_CURVE, _PLAIN_CURVE = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def short_number(value: float) -> str:
    """Return a number in at most seven characters, for a column."""
    if math.isnan(value):
        return "-"
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    tries = (f"{value:.3f}", f"{value:.1f}") if abs(value) >= 1e-3 else ()
    return next((text for text in (*tries, f"{value:.1e}") if len(text) <= NUMBER_WIDTH), f"{value:.0e}")


def rounded_number(value: float) -> str:
    """Return a number for a sentence: all digits of an integer, three of any other."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def grouped_number(value: float) -> str:
    """Return a number for a page, in about six characters: thousands apart, larger ones with a letter."""
    if math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")):
        if 1e15 > size >= power:
            return f"{value / (1e3 if letter == 'k' else power):.4g}{letter}"
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if size >= 1000 else f"{value:.3g}"


def exact_number(value: float) -> str:
    """Return an integer, such as a step, with all of its digits, and any other number as `grouped_number` does."""
    return f"{value:,.0f}" if float(value).is_integer() else grouped_number(value)


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else grouped_number(share)


def counted(count: int, noun: str) -> str:
    """Return a number of things, the noun in its plural unless there is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def byte_size(count: float) -> str:
    """Return a number of bytes in the largest unit that it fills."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def duration(seconds: float) -> str:
    """Return a time span in at most seven characters."""
    if math.isnan(seconds):
        return "-"
    if seconds == 0:
        return "0 s"
    for limit, unit, scale in ((1e-3, "us", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0), (7200.0, "min", 1 / 60)):
        if seconds < limit:
            amount = seconds * scale
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} d"


def distinct_labels(values: Sequence[float], write: Callable[[float], str]) -> list[str]:
    """Return the labels of ticks: as `write` gives them, or with as many digits as it takes to tell them apart."""
    labels = [write(value) for value in values]
    for digits in range(4, 17):
        if len(set(labels)) == len(set(values)):
            break
        labels = [f"{value:.{digits}g}" for value in values]
    return labels


def sparkline(values: Sequence[float], width: int, *, plain: bool = False) -> str:
    """Return the newest values as a curve from 0 up, a blank for each that is missing."""
    levels = _PLAIN_CURVE if plain else _CURVE
    newest = values[-width:] if width > 0 else ()
    finite = [value for value in newest if math.isfinite(value)]
    low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
    span = high - low or 1.0
    marks = (
        levels[min(len(levels) - 1, int((value - low) / span * len(levels)))] if math.isfinite(value) else " "
        for value in newest
    )
    return "".join(marks).rjust(max(0, width))
