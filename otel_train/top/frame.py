"""One frame of `otel-train top`: a look at a job as lines for a terminal of a given size. Pure.

What comes from outside (run ids, hosts, modalities) is text without markup, and none of it reaches the terminal as a
control character.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from otel_train.number_text import MOST, duration, figure, sparkline
from otel_train.printable import printable
from otel_train.top.look import BAD, OVER, Look, MetricLine, RankLine, ShareLine

SORTS: tuple[str, ...] = ("rank", "step", "seen", "staleness", "evictions", "wait", "state")
"""The columns that ranks can be sorted by."""
_ORDER: dict[str, Callable[[RankLine], float | str]] = {
    "rank": lambda rank: rank.rank,
    "step": lambda rank: rank.step,
    "seen": lambda rank: -rank.seen,
    "staleness": lambda rank: -_or_zero(rank.staleness),
    "evictions": lambda rank: -_or_zero(rank.evictions),
    "wait": lambda rank: -_or_zero(rank.wait),
    "state": lambda rank: rank.state,
}
"""Who comes first: the worst, or the lowest number."""
_BAR, _PLAIN_BAR = ("█", "░", "┃"), ("#", ".", "|")
_NAME, _RANGE, _VERDICT, _CURVE = 15, 17, 8, 4
_WIDTHS = {"step": 8, "seen": 7, "staleness": 10, "evictions": 10, "wait": 7}
"""Cells of a rank's figures."""
_DISPENSABLE = ("wait", "evictions", "seen", "staleness", "step")
"""Which of them a narrow terminal goes without first."""
_STATE, _WHY = 9, 16
_LEAST_RANKS = 3
"""Lines that the ranks get in any case: a heading and two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the person who looks wants it."""

    sort: str = "rank"
    reverse: bool = False
    filter: str = ""
    """Ranks to show: `3,8-15`, or a part of a host's name, a phase or a state; empty for all."""
    skip: int = 0
    """Ranks that are scrolled away."""
    paused: bool = False


def frame(
    look: Look, arrangement: Arrangement = Arrangement(), *, width: int, height: int | None, plain: bool = False
) -> list[Text]:
    """Return the lines of a frame.

    Args:
        look: What is shown.
        arrangement: How.
        width: Cells in a line.
        height: Lines at most; None for as many as it takes.
        plain: Whether only ASCII may be used.
    """
    lines = _header(look, arrangement, width)
    lines += [Text(f"  {_clean(notice)}", style="yellow") for notice in look.notices[:2]]
    roomy = height is None or height >= 32
    gap = [Text()] if roomy else []
    room = len(lines) + len(gap) * 3 + _LEAST_RANKS
    metrics = _metrics(look.metrics, width, plain=plain)
    lines += [*gap, *metrics]
    left = None if height is None else height - room - len(metrics)
    lines += [*gap, *_shares(look.shares, width, left if roomy or left is None else min(left, 2), plain=plain), *gap]
    lines += _ranks(look, arrangement, width, None if height is None else height - len(lines))
    if height is not None:
        lines = lines[:height]
    for line in lines:
        if plain:
            line.plain = line.plain.replace("…", "...").encode("ascii", "replace").decode()
        line.rstrip()
        line.truncate(width, overflow="crop")
        line.no_wrap = True
    return lines


def chosen(ranks: Sequence[RankLine], arrangement: Arrangement) -> list[RankLine]:
    """Return the ranks that the filter leaves, sorted."""
    matches = _matcher(arrangement.filter.strip().lower())
    found = sorted((rank for rank in ranks if matches(rank)), key=lambda rank: rank.rank)
    return sorted(found, key=_ORDER[arrangement.sort], reverse=arrangement.reverse)


def _matcher(text: str) -> Callable[[RankLine], bool]:
    spans = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit()))):
            return lambda rank: text in f"{rank.host}\n{rank.phase}\n{rank.state}".lower()
        spans.append((int(first[:9]), int((last or first)[:9])))
    return lambda rank: not spans or any(low <= rank.rank <= high for low, high in spans)


def _header(look: Look, arrangement: Arrangement, width: int) -> list[Text]:
    began = dt.datetime.fromtimestamp(min(look.attempt, 10**14) / 1e3).astimezone()
    over = look.state in OVER
    state = Text().append("PAUSED " if arrangement.paused else "", style="bold yellow")
    state.append(look.state, style="bold red" if look.alarming else "bold green")
    state.append(f" {duration(look.age)} ago" if over else f", up {duration(look.age)}")
    seen = "" if len(look.ranks) == look.world_size else f", {len(look.ranks)} here"
    ranks = f"  {look.world_size} rank{'' if look.world_size == 1 else 's'}{seen}  "
    since = f"since {began:%b %d %H:%M:%S}  "
    if len(ranks) + len(since) + len(state) + 4 <= width:
        ranks += since
    title = Text(set_cell_size(_clean(look.run_id), max(4, min(width - len(ranks) - len(state), _cells(look.run_id)))))
    title.stylize("bold")
    title.append(ranks, style="not bold")
    title.append_text(state)
    part = look.wait_seconds / look.step_seconds if look.step_seconds > 0 else math.nan
    wait = f"data wait {duration(look.wait_seconds)}" + ("" if math.isnan(part) else f" ({100 * part:.0f} %)")
    rate = "-" if math.isnan(look.rate) else f"{look.rate:.3g}"
    pace = f"step {look.step}  {rate} steps/s  {duration(look.step_seconds)} a step  {wait}"
    return [title, Text(f"{pace}  unsent {look.unsent}")]


def _cells(text: str) -> int:
    return cell_len(_clean(text))


def _metrics(lines: Sequence[MetricLine], width: int, *, plain: bool) -> list[Text]:
    """Return a heading for each group of metrics, and a line for each of them."""
    spare = width - _NAME - _VERDICT - 1
    # A narrow terminal goes without the range, then without the judged figure, the curve and the last value.
    ranged, judged, last = spare >= 2 * MOST + _RANGE + 3 + _CURVE, spare >= 2 * MOST + 2 + _CURVE, spare > MOST
    curve = max(0, spare - MOST * (last + judged) - _RANGE * ranged - (last + judged + ranged) - 1)
    curve = curve if curve >= _CURVE else 0
    gap = curve + (curve > 0)
    made = []
    for group, members in groupby(lines, lambda line: line.key.partition("/")[0]):
        heading = f"{group:<{_NAME + gap}} " + f"{'last':>{MOST}} " * last + f"{'judged':>{MOST}} " * judged
        made.append(Text(heading + f"{'healthy':<{_RANGE}} " * ranged + "verdict", style="dim"))
        for line in members:
            name = f"{line.key.partition('/')[2]:<{_NAME}}"
            text = Text(f"{name} ")
            if curve:
                style = "red" if line.healthy is False else "cyan"
                text.append(sparkline(line.curve, curve, plain=plain), style=style).append(" ")
            text.append(f"{figure(line.last):>{MOST}} " * last + f"{figure(line.judged):>{MOST}} " * judged)
            text.append(f"{line.range!s:<{_RANGE}} " * ranged)
            if line.healthy is None:
                text.append("no data", style="dim")
            elif line.healthy:
                text.append("ok", style="green")
            else:
                text.append("OUT" + ("" if line.worst_rank is None else f" r{line.worst_rank}"), style="bold red")
            made.append(text)
    return made


def _shares(shares: Sequence[ShareLine], width: int, room: int | None, *, plain: bool) -> list[Text]:
    """Return bars, two in a line, each with a mark where its target is."""
    full, empty, mark = _PLAIN_BAR if plain else _BAR
    columns = 2 if len(shares) > 1 and width >= 64 else 1
    cell = (width - 2 * (columns - 1)) // columns
    if room is not None and room <= 0:
        return []
    longest = min(16, max((_cells(each.modality) for each in shares), default=0))
    bars = []
    for each in shares:
        name = set_cell_size(_clean(each.modality), min(longest, max(4, cell - 24)))
        share = 0.0 if math.isnan(each.share) else each.share
        target = 0.0 if math.isnan(each.target) else each.target
        length = max(4, cell - cell_len(name) - 16)
        bar = [full if place < round(share * length) else empty for place in range(length)]
        bar[max(0, min(length - 1, round(target * length) - 1))] = mark
        bars.append(f"{name} {''.join(bar)} {100 * share:5.1f} of {100 * target:4.1f}%")
    made = [
        Text("  ".join(set_cell_size(bar, cell) for bar in bars[start : start + columns]))
        for start in range(0, len(bars), columns)
    ]
    if room is not None and len(made) > room:
        left = len(shares) - columns * (room - 1)
        made = [*made[: room - 1], Text(f"… {left} more modalities", style="dim")]
    return made


def _ranks(look: Look, arrangement: Arrangement, width: int, room: int | None) -> list[Text]:
    wide = width >= 100
    # The column that they are sorted by is told by capitals, and by a minus where the order is turned round.
    titles = {name: name for name in SORTS}
    titles[arrangement.sort] = ("-" if arrangement.reverse else "") + arrangement.sort.upper()
    figures = _figures_that_fit(width)
    heading = f"  {titles['rank']:<6}" + "".join(f"{titles[name]:>{_WIDTHS[name]}} " for name in figures)
    heading += f"{titles['state']:<{_STATE}}"
    found = chosen(look.ranks, arrangement)
    note = f"of {len(look.ranks)}: {_clean(arrangement.filter)}" if arrangement.filter else ""
    lines = [Text(f"{heading} {'host' if wide else ''} {note}".rstrip(), style="dim")]
    worst = look.worst
    shown = found[max(0, min(arrangement.skip, len(found) - 1)) :]
    cut = room is not None and len(shown) > room - 1
    if cut and room is not None:
        # The worst one is always seen, and the last line says how many are not.
        pinned = [rank for rank in shown if worst is not None and rank.rank == worst.rank]
        kept = shown[: max(0, room - 2)]
        if pinned and pinned[0] not in kept and kept:
            kept = [*pinned, *kept[:-1]]
        hidden = len(shown) - len(kept)
        shown = kept
    lines += [_rank(rank, look, width, figures, wide=wide) for rank in shown]
    if cut:
        lines.append(Text(f"  … {hidden} more", style="dim"))
    if not found:
        lines.append(Text("  no rank matches the filter", style="dim"))
    return lines


def _figures_that_fit(width: int) -> list[str]:
    """Return the columns of figures that leave room for a rank's state and why it is marked."""
    names = list(_WIDTHS)
    for name in _DISPENSABLE:
        if 8 + sum(_WIDTHS[kept] + 1 for kept in names) + _STATE + _WHY <= width:
            break
        names.remove(name)
    return names


def _rank(rank: RankLine, look: Look, width: int, figures: Sequence[str], *, wide: bool) -> Text:
    worst = look.worst if look.worst is not None and look.worst.rank == rank.rank else None
    mark = " " if worst is None else "!" if worst.wrong else "*"
    state = rank.phase if rank.state == "live" else rank.state
    cells = {
        "step": str(rank.step),
        "seen": duration(rank.seen),
        "staleness": figure(rank.staleness),
        "evictions": figure(rank.evictions),
        "wait": duration(rank.wait),
    }
    text = f"{mark} {rank.rank:<6}" + "".join(f"{cells[name]:>{_WIDTHS[name]}} " for name in figures)
    text += f"{state:<{_STATE}}"
    if wide:
        text += f" {set_cell_size(_clean(rank.host), min(20, width - len(text) - 17))}"
    if worst is not None:
        text += f" {worst.why}"
    line = Text(text)
    if worst is not None:
        line.stylize("bold red" if worst.wrong else "bold")
    elif rank.state in BAD:
        line.stylize("red")
    return line


def _clean(text: str) -> str:
    """Return text that can stand in a frame, and not more than a line of it."""
    return printable(text[:200])


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
