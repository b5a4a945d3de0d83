"""The live view of `otel-train top`, a frame each second; and one frame for scripts and pictures."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from rich.console import Console
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from otel_train.catalogue import Ranges, healthy_range
from otel_train.exceptions import OtelTrainError
from otel_train.read.rings import RingJob
from otel_train.top.frame import SORTS, Arrangement, frame, selected_ranks
from otel_train.top.snapshot import RANK_KEYS, Snapshot, take_snapshot

NEWEST = 512
"""Newest records of each ring that are read: the verdicts reach back over 256 log steps of rank 0, which writes two."""
INTERVAL = 1.0
"""Seconds between two frames."""
PAGE = 10


class Watch:
    """The rings of a job, attached read-only: it writes nothing, holds no lock and asks no rank anything.

    Args:
        directory: The directory of the rings.
        ranges: Gives the healthy range of a headline key.
    """

    def __init__(self, directory: Path, ranges: Ranges = healthy_range) -> None:
        self._ranges = ranges
        self._job = RingJob(directory, newest=NEWEST, rank_keys=RANK_KEYS)

    def snapshot(self, *, refresh: bool = True) -> Snapshot:
        """Read the new records, and return the job's present state."""
        if refresh:
            self._job.refresh()
        damaged = [f"{path.name}: {why}" for path, why in self._job.damaged.items()]
        states = self._job.states()
        return take_snapshot(self._job.history, states, time.time_ns(), ranges=self._ranges, notices=damaged)

    def close(self) -> None:
        """Release the rings."""
        self._job.close()


def print_frame(directory: Path, ranges: Ranges = healthy_range) -> None:
    """Print one frame to stdout: of the terminal's size, or, elsewhere, with all ranks in COLUMNS or 80 columns."""
    watch = Watch(directory, ranges)
    console = Console(highlight=False, soft_wrap=True)
    piped = not console.is_terminal
    width = _number("COLUMNS") or (80 if piped else console.width)
    height = _number("LINES") or (None if piped else max(1, console.height - 1))
    for line in frame(watch.snapshot(refresh=False), width=width, height=height, plain=not _prints_unicode(console)):
        console.print(line, width=width, no_wrap=True, crop=False)
    watch.close()


def save_frame(directory: Path, file: Path, ranges: Ranges = healthy_range) -> None:
    """Save one frame as an SVG picture that requests nothing from other hosts.

    Raises:
        OSError: The file can't be written.
    """
    watch = Watch(directory, ranges)
    width = _number("COLUMNS") or 96
    console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    for line in frame(watch.snapshot(refresh=False), width=width, height=_number("LINES")):
        console.print(line, no_wrap=True)
    watch.close()
    picture = console.export_svg(title="otel-train top")
    file.write_text(re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", picture, count=3, flags=re.DOTALL), encoding="utf-8")


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 5 and int(text) > 0 else None


def _prints_unicode(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf")


class Top(App[None]):
    """The live view.

    Args:
        watch: The job.
        plain: Whether only ASCII may be used.
    """

    TITLE = "otel-train top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #frame { height: 1fr; width: 1fr; }
    #filter { dock: bottom; height: 1; border: none; padding: 0; margin-bottom: 1; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("f", "filter", "filter"),
        Binding("slash", "filter", show=False),
        Binding("p", "pause", "pause"),
        Binding("down,j", "scroll(1)", "scroll", key_display="arrows"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("pagedown", f"scroll({PAGE})", show=False),
        Binding("pageup", f"scroll(-{PAGE})", show=False),
        Binding("home", "scroll(-1000000000)", show=False),
        Binding("escape", "leave_filter", show=False),
    ]

    def __init__(self, watch: Watch, *, plain: bool = False) -> None:
        super().__init__(ansi_color=True)
        self.arrangement = Arrangement()
        self._watch = watch
        self._plain = plain
        self.shown: Snapshot | None = None
        self._reading = False
        self._problem = ""

    def compose(self) -> ComposeResult:
        """Return the frame, the field for the filter, and the keys."""
        yield Static(id="frame", markup=False)
        yield Input(placeholder="ranks such as 3,8-15, or a part of a host, phase or state", id="filter", compact=True)
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Take the first snapshot, and one each second from then on."""
        self.query_one(Static).can_focus = True
        self.query_one(Static).focus()
        self.tick()
        self.set_interval(INTERVAL, self.tick)

    def on_resize(self, _event: Resize) -> None:
        """Draw the frame in its new size."""
        self.call_after_refresh(self._draw)

    def tick(self) -> None:
        """Begin a snapshot, unless the view is paused or the last one is not there yet: keys are answered meanwhile."""
        if not self._reading and not self.arrangement.paused:
            self._reading = True
            self._read()

    @work(thread=True, exit_on_error=True)
    def _read(self) -> None:
        snapshot: Snapshot | None = None
        try:
            snapshot, problem = self._watch.snapshot(), ""
        except (OtelTrainError, OSError) as error:
            problem = str(error)
        self.call_from_thread(self._show, snapshot, problem)

    def _show(self, snapshot: Snapshot | None, problem: str) -> None:
        self._reading = False
        self.shown, self._problem = snapshot or self.shown, problem
        self._draw()

    def _draw(self) -> None:
        widget = self.query_one(Static)
        if self.shown is None:
            widget.update(Text(self._problem or "reading the rings"))
            return
        shown = self.shown
        if self._problem:
            shown = replace(shown, notices=(self._problem, *shown.notices))
        width, height = widget.size
        if width and height:
            lines = frame(shown, self.arrangement, width=width, height=height, plain=self._plain)
            widget.update(Text("\n", no_wrap=True).join(lines))

    def _arrange(self, arrangement: Arrangement) -> None:
        self.arrangement = arrangement
        self._draw()

    def action_sort(self) -> None:
        """Sort the ranks by the next column."""
        following = SORTS[(SORTS.index(self.arrangement.sort) + 1) % len(SORTS)]
        self._arrange(replace(self.arrangement, sort=following, skip=0))

    def action_reverse(self) -> None:
        """Reverse the order."""
        self._arrange(replace(self.arrangement, reverse=not self.arrangement.reverse, skip=0))

    def action_pause(self) -> None:
        """Keep the present frame, or go on."""
        self._arrange(replace(self.arrangement, paused=not self.arrangement.paused))
        self.tick()

    def action_scroll(self, lines: int) -> None:
        """Move over the ranks."""
        ranks = 0 if self.shown is None else len(selected_ranks(self.shown.ranks, self.arrangement))
        skip = max(0, min(self.arrangement.skip + lines, ranks - 1))
        self._arrange(replace(self.arrangement, skip=skip))

    def action_filter(self) -> None:
        """Ask which ranks to show."""
        field = self.query_one(Input)
        field.display = True
        field.focus()
        self.call_after_refresh(self._draw)

    def action_leave_filter(self) -> None:
        """Show all ranks again."""
        self.query_one(Input).value = ""
        self._arrange(replace(self.arrangement, filter="", skip=0))
        self._close_field()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._arrange(replace(self.arrangement, filter=event.value, skip=0))

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Keep the filter."""
        self._close_field()

    def _close_field(self) -> None:
        self.query_one(Input).display = False
        self.query_one(Static).focus()
        self.call_after_refresh(self._draw)


def run_top(directory: Path, ranges: Ranges = healthy_range) -> None:
    """Show a job until the user quits; stdout is a terminal."""
    watch = Watch(directory, ranges)
    try:
        Top(watch, plain=not _prints_unicode(Console(file=sys.stdout))).run()
    finally:
        watch.close()
