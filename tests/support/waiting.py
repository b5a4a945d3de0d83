"""Wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(
    holds: Callable[[], bool],
    seconds: float = 30.0,
    what: str = "what is waited for",
    *,
    log: Path | None = None,
    pause: float = 0.02,
) -> None:
    """Wait until something holds.

    Args:
        holds: Asked again and again.
        seconds: How long at most.
        what: Its name in the failure's message.
        log: A file that the message shows.
        pause: Seconds between two times of asking.

    Raises:
        AssertionError: It does not in that time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        said = f":\n{log.read_text()}" if log is not None and time.monotonic() >= deadline else ""
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s{said}"
        time.sleep(pause)
