"""The live view of `otel-train top`, a frame each second."""

from __future__ import annotations

import sys
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
from otel_train.top.frame import SORTS, Arrangement, frame, selected_ranks
from otel_train.top.one_frame import Watch, prints_unicode
from otel_train.top.snapshot import Snapshot

INTERVAL = 1.0
"""Seconds between two frames."""
PAGE = 10


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
        if self.arrangement.paused and self.shown is not None:
            return  # it was under way when the view was paused
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
        Top(watch, plain=not prints_unicode(Console(file=sys.stdout))).run()
    finally:
        watch.close()
