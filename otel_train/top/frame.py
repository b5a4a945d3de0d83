"""One frame of `otel-train top`: a snapshot of a job as lines for a terminal of a given size. Pure.

Names that others gave (run ids, hosts, modalities) are text without markup, and none of them reaches the terminal as a
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

from otel_train.number_text import NUMBER_WIDTH, counted, duration, short_number, sparkline
from otel_train.printable import printable
from otel_train.read.rank_ring import RankStatus
from otel_train.top.snapshot import BAD, OVER, MetricLine, RankLine, ShareLine, Snapshot

SORTS: tuple[str, ...] = ("rank", "step", "seen", "staleness", "evictions", "wait", "state")
"""The columns that ranks can be sorted by."""
_ORDER: dict[str, Callable[[RankLine], float | str]] = {
    "rank": lambda rank: rank.rank,
    "step": lambda rank: rank.step,
    "seen": lambda rank: -rank.seen,
    "staleness": lambda rank: -_or_zero(rank.staleness),
    "evictions": lambda rank: -_or_zero(rank.evictions),
    "wait": lambda rank: -_or_zero(rank.wait),
    "state": lambda rank: rank.status,
}
"""Sort keys, by column: the worst or the lowest number comes first."""
_BAR, _PLAIN_BAR = ("█", "░", "┃"), ("#", ".", "|")
_NAME, _RANGE, _VERDICT, _CURVE = 15, 17, 8, 4
_WIDTHS = {"step": 8, "seen": 7, "staleness": 10, "evictions": 10, "wait": 7}
"""Width of each column of a rank's values, in cells."""
_DISPENSABLE = ("wait", "evictions", "seen", "staleness", "step")
"""Columns that a narrow terminal goes without, in this order."""
_LOSS_FROM = 46
"""Width of a modality's bar from which it has the modality's loss beside it."""
_STATE, _WHY = 9, 16
_STANDARD = 80
"""Width where nothing gives another."""
_WIDE = 100
"""Width from which on ranks have their host beside them."""
_LEAST_RANKS = 3
"""Least number of lines for the ranks: a heading and two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Order and selection of the ranks, as the user sets them."""

    sort: str = "rank"
    reverse: bool = False
    filter: str = ""
    """Ranks to show: `3,8-15`, or a part of a host's name, a phase or a state; empty for all."""
    skip: int = 0
    """Number of ranks that are scrolled away."""
    paused: bool = False


def frame(
    snapshot: Snapshot, arrangement: Arrangement = Arrangement(), *, width: int, height: int | None, plain: bool = False
) -> list[Text]:
    """Return the lines of a frame.

    Args:
        snapshot: The job.
        arrangement: Order and selection of the ranks.
        width: Cells in a line.
        height: Lines at most; None for as many as it takes.
        plain: Whether only ASCII may be used.
    """
    lines = _header(snapshot, arrangement, width)
    lines += [Text(f"  {_clean(notice)}", style="yellow") for notice in snapshot.notices[:2]]
    roomy = height is None or height >= 32
    gap = [Text()] if roomy else []
    room = len(lines) + len(gap) * 3 + _LEAST_RANKS
    metrics = _metrics(snapshot.metrics, width, plain=plain)
    lines += [*gap, *metrics]
    left = None if height is None else height - room - len(metrics)
    lines += [
        *gap,
        *_shares(snapshot.shares, width, left if roomy or left is None else min(left, 2), plain=plain),
        *gap,
    ]
    lines += _ranks(snapshot, arrangement, width, None if height is None else height - len(lines))
    if height is not None:
        lines = lines[:height]
    for line in lines:
        if plain:
            line.plain = line.plain.replace("…", "...").encode("ascii", "replace").decode()
        line.rstrip()
        line.truncate(width, overflow="crop")
        line.no_wrap = True
    return lines


def whole_width(snapshot: Snapshot) -> int:
    """Return the width of a frame in a pipe, which has no edge and is searched: no name is cut."""
    unbounded = 10_000
    lines = _header(snapshot, Arrangement(), unbounded) + [Text(f"  {_clean(notice)}") for notice in snapshot.notices]
    widths = [cell_len(line.plain) for line in lines]
    # Two bars in a line, each with a name, percentages and a loss; 80 columns have room for names of 15 cells.
    names = [cells for cells in (_cells(line.modality) for line in snapshot.shares) if cells > 15]
    widths += [2 * max(2 * cells, cells + 36) + 2 for cells in names]
    if max(widths) <= _STANDARD:
        return _STANDARD
    ranks = _ranks(snapshot, Arrangement(), unbounded, None)
    return max(_WIDE, *widths, *(cell_len(line.plain) + _WHY + 1 for line in ranks))


def selected_ranks(ranks: Sequence[RankLine], arrangement: Arrangement) -> list[RankLine]:
    """Return the ranks that the filter selects, sorted."""
    matches = _matcher(arrangement.filter.strip().lower())
    by_rank = sorted((rank for rank in ranks if matches(rank)), key=lambda rank: rank.rank)
    return sorted(by_rank, key=_ORDER[arrangement.sort], reverse=arrangement.reverse)


def _matcher(text: str) -> Callable[[RankLine], bool]:
    spans = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit()))):
            return lambda rank: text in f"{rank.host}\n{rank.phase}\n{rank.status}".lower()
        spans.append((int(first[:9]), int((last or first)[:9])))
    return lambda rank: not spans or any(low <= rank.rank <= high for low, high in spans)


def _header(snapshot: Snapshot, arrangement: Arrangement, width: int) -> list[Text]:
    began = dt.datetime.fromtimestamp(min(snapshot.attempt, 10**14) / 1e3).astimezone()
    over = snapshot.state in OVER
    state = Text().append("PAUSED " if arrangement.paused else "", style="bold yellow")
    state.append(snapshot.state, style="bold red" if snapshot.alarming else "bold green")
    state.append(f" {duration(snapshot.age)} ago" if over else f", up {duration(snapshot.age)}")
    seen = "" if len(snapshot.ranks) == snapshot.world_size else f", {len(snapshot.ranks)} here"
    ranks = f"  {counted(snapshot.world_size, 'rank')}{seen}  "
    since = f"since {began:%b %d %H:%M:%S}  "
    if len(ranks) + len(since) + len(state) + 4 <= width:
        ranks += since
    title = Text(
        set_cell_size(_clean(snapshot.run_id), max(4, min(width - len(ranks) - len(state), _cells(snapshot.run_id))))
    )
    title.stylize("bold")
    title.append(ranks, style="not bold")
    title.append_text(state)
    part = snapshot.wait_seconds / snapshot.step_seconds if snapshot.step_seconds > 0 else math.nan
    wait = f"data wait {duration(snapshot.wait_seconds)}" + ("" if math.isnan(part) else f" ({100 * part:.0f} %)")
    rate = "-" if math.isnan(snapshot.rate) else f"{snapshot.rate:.3g}"
    pace = [f"step {snapshot.step}", f"{rate} steps/s", f"{duration(snapshot.step_seconds)} a step", wait]
    pace.append(f"unsent {snapshot.unsent}")
    for dispensable in (pace[2], pace[1], wait):
        if len("  ".join(pace)) > width:
            pace.remove(dispensable)
    return [title, Text("  ".join(pace))]


def _cells(text: str) -> int:
    return cell_len(_clean(text))


def _metrics(lines: Sequence[MetricLine], width: int, *, plain: bool) -> list[Text]:
    """Return a heading for each group of metrics, and a line for each of them."""
    spare = width - _NAME - _VERDICT - 1
    # A narrow terminal goes without the range, then without the judged figure, the curve and the last value.
    ranged, judged, last = (
        spare >= 2 * NUMBER_WIDTH + _RANGE + 3 + _CURVE,
        spare >= 2 * NUMBER_WIDTH + 2 + _CURVE,
        spare > NUMBER_WIDTH,
    )
    curve = max(0, spare - NUMBER_WIDTH * (last + judged) - _RANGE * ranged - (last + judged + ranged) - 1)
    curve = curve if curve >= _CURVE else 0
    gap = curve + (curve > 0)
    made = []
    for group, members in groupby(lines, lambda line: line.key.partition("/")[0]):
        heading = (
            f"{group:<{_NAME + gap}} " + f"{'last':>{NUMBER_WIDTH}} " * last + f"{'judged':>{NUMBER_WIDTH}} " * judged
        )
        made.append(Text(heading + f"{'healthy':<{_RANGE}} " * ranged + "verdict", style="dim"))
        for line in members:
            name = f"{line.key.partition('/')[2]:<{_NAME}}"
            text = Text(f"{name} ")
            if curve:
                style = "red" if line.healthy is False else "cyan"
                text.append(sparkline(line.curve, curve, plain=plain), style=style).append(" ")
            text.append(
                f"{short_number(line.last):>{NUMBER_WIDTH}} " * last
                + f"{short_number(line.judged):>{NUMBER_WIDTH}} " * judged
            )
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
    longest = min(max(16, cell // 2), max((_cells(line.modality) for line in shares), default=0))
    with_loss = cell >= _LOSS_FROM and not all(math.isnan(line.loss) for line in shares)
    bars = []
    for line in shares:
        loss = f" loss {short_number(line.loss):>7}" if with_loss else ""
        # A bar of 4 and the figures come before a long name.
        name = set_cell_size(_clean(line.modality), min(longest, max(4, min(cell - 24, cell - 20 - len(loss)))))
        share, target = _or_zero(line.share), _or_zero(line.target)
        length = max(4, cell - cell_len(name) - 16 - len(loss))
        bar = [full if index < round(share * length) else empty for index in range(length)]
        bar[max(0, min(length - 1, round(target * length) - 1))] = mark
        bars.append(f"{name} {''.join(bar)} {100 * share:5.1f} of {100 * target:4.1f}%{loss}")
    made = [
        Text("  ".join(set_cell_size(bar, cell) for bar in bars[start : start + columns]))
        for start in range(0, len(bars), columns)
    ]
    if room is not None and len(made) > room:
        left = len(shares) - columns * (room - 1)
        made = [*made[: room - 1], Text(f"… {left} more modalities", style="dim")]
    return made


def _ranks(snapshot: Snapshot, arrangement: Arrangement, width: int, room: int | None) -> list[Text]:
    wide = width >= _WIDE
    # Capitals mark the column that the ranks are sorted by, and a minus the reversed order.
    titles = {name: name for name in SORTS}
    titles[arrangement.sort] = ("-" if arrangement.reverse else "") + arrangement.sort.upper()
    columns = _columns_that_fit(width)
    heading = f"  {titles['rank']:<6}" + "".join(f"{titles[name]:>{_WIDTHS[name]}} " for name in columns)
    heading += f"{titles['state']:<{_STATE}}"
    selected = selected_ranks(snapshot.ranks, arrangement)
    note = f"of {len(snapshot.ranks)}: {_clean(arrangement.filter)}" if arrangement.filter else ""
    lines = [Text(f"{heading} {'host' if wide else ''} {note}".rstrip(), style="dim")]
    worst = snapshot.worst
    shown = selected[max(0, min(arrangement.skip, len(selected) - 1)) :]
    cut = room is not None and len(shown) > room - 1
    if cut and room is not None:
        # The worst one is always shown, and the last line counts the hidden ones.
        pinned = [rank for rank in shown if worst is not None and rank.rank == worst.rank]
        kept = shown[: max(0, room - 2)]
        if pinned and pinned[0] not in kept and kept:
            kept = [*pinned, *kept[:-1]]
        hidden = len(shown) - len(kept)
        shown = kept
    host = max((_cells(rank.host) for rank in shown), default=0) if wide else 0
    lines += [_rank(rank, snapshot, width, columns, host) for rank in shown]
    if cut:
        lines.append(Text(f"  … {hidden} more", style="dim"))
    if not selected:
        lines.append(Text("  no rank matches the filter", style="dim"))
    return lines


def _columns_that_fit(width: int) -> list[str]:
    """Return the columns of values that leave room for a rank's state and why it is marked."""
    names = list(_WIDTHS)
    for name in _DISPENSABLE:
        if 8 + sum(_WIDTHS[kept] + 1 for kept in names) + _STATE + _WHY <= width:
            break
        names.remove(name)
    return names


def _rank(rank: RankLine, snapshot: Snapshot, width: int, columns: Sequence[str], host: int) -> Text:
    worst = snapshot.worst if snapshot.worst is not None and snapshot.worst.rank == rank.rank else None
    mark = " " if worst is None else "!" if worst.wrong else "*"
    state = rank.phase if rank.status is RankStatus.LIVE else rank.status
    cells = {
        "step": str(rank.step),
        "seen": duration(rank.seen),
        "staleness": short_number(rank.staleness),
        "evictions": short_number(rank.evictions),
        "wait": duration(rank.wait),
    }
    text = f"{mark} {rank.rank:<6}" + "".join(f"{cells[name]:>{_WIDTHS[name]}} " for name in columns)
    text += f"{state:<{_STATE}}"
    if host:
        text += f" {set_cell_size(_clean(rank.host), min(host, width - len(text) - _WHY - 1))}"
    if worst is not None:
        text += f" {worst.why}"
    line = Text(text)
    if worst is not None:
        line.stylize("bold red" if worst.wrong else "bold")
    elif rank.status in BAD:
        line.stylize("red")
    return line


def _clean(text: str) -> str:
    """Return text without control characters, short enough for one line."""
    return printable(text[:200])


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
