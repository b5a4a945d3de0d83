"""Numbers, time spans and curves in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST = 7
"""Characters that a number or a time span takes."""
_CURVE, _PLAIN_CURVE = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def figure(value: float) -> str:
    """Return a number in at most seven characters."""
    if math.isnan(value):
        return "-"
    if value.is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    tries = (f"{value:.3f}", f"{value:.1f}") if abs(value) >= 1e-3 else ()
    return next((text for text in (*tries, f"{value:.1e}") if len(text) <= MOST), f"{value:.0e}")


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


def sparkline(values: Sequence[float], width: int, *, plain: bool = False) -> str:
    """Return the newest values as a curve from 0 up, a blank where there is none."""
    levels = _PLAIN_CURVE if plain else _CURVE
    newest = values[-width:] if width > 0 else ()
    known = [value for value in newest if math.isfinite(value)]
    low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    span = high - low or 1.0
    marks = (
        levels[min(len(levels) - 1, int((value - low) / span * len(levels)))] if math.isfinite(value) else " "
        for value in newest
    )
    return "".join(marks).rjust(max(0, width))
