"""Wait until something shows that it did its work."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds that a peer may take to show what it got."""


def see_that(done: Callable[[], bool], what: str) -> None:
    """Wait until a peer shows its work.

    Raises:
        RuntimeError: It does not: it was not set up as it should be, and its time means nothing.
    """
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not do its work")
        time.sleep(0.05)
