"""Tell people at a terminal that a command is still at work, and how far it is, from a second on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PATIENCE = 1.0
"""Seconds without a word."""
_CLEAR = "\r\033[K"


@contextmanager
def progress(what: str, stream: TextIO | None = None, patience: float = PATIENCE) -> Iterator[None]:
    """Show what is done, how far and for how long, on one line that goes away at the end; nothing where nobody looks.

    Args:
        what: The work, such as "reading the run".
        stream: A terminal; stderr unless given.
        patience: Seconds before the line is shown, and between its changes.
    """
    terminal = sys.stderr if stream is None else stream
    if not terminal.isatty():
        yield
        return
    from otel_train.how_far import told  # noqa: PLC0415  # not for the list of commands

    done = threading.Event()
    parts: dict[str, float] = {}

    def hear(part: str, share: float) -> None:
        if share < 1:
            parts[part] = share
        else:
            parts.pop(part, None)

    def show() -> None:
        seconds = patience
        while not done.wait(patience):
            far = ", ".join(f"{part} {100 * share:.0f} %" for part, share in list(parts.items()))
            terminal.write(f"{_CLEAR}{what}{f': {far}' if far else ''}, {seconds:.0f} s ...")
            terminal.flush()
            seconds += patience
        if seconds > patience:
            terminal.write(_CLEAR)
            terminal.flush()

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        with told(hear):
            yield
    finally:
        done.set()
        thread.join()
