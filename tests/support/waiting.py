"""Wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(
    holds: Callable[[], bool],
    seconds: float = 30.0,
    what: str = "the condition",
    *,
    log: Path | None = None,
    pause: float = 0.02,
) -> None:
    """Wait until something holds.

    Args:
        holds: Called again and again.
        seconds: How long at most.
        what: Name of what is waited for, for the failure's message.
        log: A file that the message shows.
        pause: Seconds between two calls.

    Raises:
        AssertionError: It does not in that time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        text = f":\n{log.read_text()}" if log is not None and log.exists() and time.monotonic() >= deadline else ""
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s{text}"
        time.sleep(pause)
