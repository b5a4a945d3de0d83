"""Wait for a signal or another thread, without the deadlock and the delay of an Event."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import weakref
from collections.abc import Callable, Iterator, Mapping


class Wakeup:
    """A wait that ends early when another thread, a signal or its handler says so.

    An Event is for threads only. Its `set` in a handler takes a lock that the interrupted wait may hold: a deadlock.
    And Python runs a handler in the main thread, which it can't while that waits for an Event, if the system gave the
    signal to another thread; a wait for a pipe ends, whichever thread has written to it.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()  # select.select takes no descriptor from 1024 on
        self._poll.register(self._reader, select.POLLIN)
        weakref.finalize(self, _close, self._reader, self._writer)

    def set(self) -> None:
        """End the wait that is under way, or else the next one."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full: the wait ends anyhow
            os.write(self._writer, b"\0")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most that many seconds (None: without a limit), and tell whether something ended the wait."""
        ready = self._poll.poll(None if seconds is None else math.ceil(1000 * seconds))
        if ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._reader, 4096):
                    pass
        return bool(ready)

    @contextlib.contextmanager
    def handling(self, handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
        """Have signals call their handlers and end the wait, during the block; in the main thread only."""
        outer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, _ignoring_frame(handler)) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(outer)


def _ignoring_frame(handler: Callable[[], None]) -> Callable[[int, object], None]:
    return lambda _number, _frame: handler()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
