"""How far long work is: what reads or computes tells it, and whoever shows it to people listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, float], None]
"""Gets the name of a part of the work, and how much of it is done: from 0 to 1, where it ends."""
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(part: str, done: int, of: int) -> None:
    """Tell whoever listens how far a part of the work is; cheap, but nothing for each record.

    Args:
        part: Its name, such as "records checked".
        done: Number of pieces that are done.
        of: Number of all of them; once so many are done, the part has ended.
    """
    listener = _LISTENER.get()
    if listener is not None:
        listener(part, done / of if done < of else 1.0)


@contextmanager
def told(listener: Listener) -> Iterator[None]:
    """Let a listener hear what is told inside the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
