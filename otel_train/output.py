"""Write for people, wherever it goes: a terminal of any width and encoding, a pipe, a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that prints nothing of that kind need not load it
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 10_000
"""Cells in a line that goes to a pipe or a file: none is broken or cut there."""


def replace_unprintable() -> None:
    """Let stdout and stderr print a `?` for a character that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def make_console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or COLUMNS; elsewhere one that breaks no line."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False, stderr=stderr)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PIPE_WIDTH
    return console


def fitting_table(
    console: Console, columns: Sequence[str], dispensable: Sequence[str], build: Callable[[Sequence[str]], Table]
) -> Table:
    """Return a table that fits the console's width, without as many columns as it takes.

    Args:
        console: Where it is printed.
        columns: The columns' names, in order.
        dispensable: Those that can be left out, least important first.
        build: Makes a table of some of the columns.
    """
    from rich.measure import Measurement  # noqa: PLC0415

    left_out: set[str] = set()
    for name in [*dispensable, ""]:
        table = build([column for column in columns if column not in left_out])
        if Measurement.get(console, console.options, table).maximum <= console.width:
            break
        left_out.add(name)
    return table
