"""A thread that looks after what is under way while the training thread is elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

INTERVAL = 0.05
"""Seconds between two looks: what ends a process without asking it gives it more after its last step."""


class Watcher:
    """Looks again and again while there is something to look after, and sleeps while there is nothing.

    Args:
        look: Called by the thread; tells whether it is to be called again.
        name: The thread's name.
    """

    def __init__(self, look: Callable[[], bool], name: str) -> None:
        self._look, self._name = look, name
        self.interval = INTERVAL
        """Seconds until the next look."""
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have the thread look from now on, if it does not; it is made at the first call."""
        if self._asleep:
            self._asleep = False
            self._calls.put(None)
        elif self._thread is None and not self._stopped:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread is to be had: the training thread looks at each step
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while not self._stopped:
            time.sleep(self.interval)
            if self._stopped or self._look():
                continue
            self._asleep = True
            # What came between the look and this would be slept through.
            if self._look():
                self._asleep = False
                continue
            self._calls.get()

    def stop(self, timeout: float) -> None:
        """End the thread, and wait for that so many seconds at most."""
        self._stopped = True
        self._calls.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
