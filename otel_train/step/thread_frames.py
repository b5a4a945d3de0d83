"""Look at what the threads of the process are doing."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
from collections.abc import Mapping
from types import FrameType


class _Looking:
    lock = threading.RLock()


def frames_of_threads() -> Mapping[int, FrameType]:
    """Return the innermost frame of each thread, by its identifier.

    The garbage collector must not run meanwhile. Before Python 3.12 it may, and a finalizer that lets other threads run
    leaves the process standing for good when one of them starts a thread: both need one lock of the interpreter's
    (https://github.com/python/cpython/issues/106883).
    """
    with _Looking.lock:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()  # noqa: SLF001  # the only way to see them
        finally:
            if collects:
                gc.enable()


def frame_of(thread: int) -> FrameType | None:
    """Return a thread's innermost frame; None where it has ended."""
    return inspect.currentframe() if thread == threading.get_ident() else frames_of_threads().get(thread)


def _begin_child() -> None:
    _Looking.lock = threading.RLock()


os.register_at_fork(after_in_child=_begin_child)
