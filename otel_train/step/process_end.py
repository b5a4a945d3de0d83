"""See how a session ends: with its process, after which exception, or not at all in a forked child."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from multiprocessing.util import Finalize
from weakref import WeakSet

from otel_train.ring.file_format import ERROR
from otel_train.step.signal_watch import WATCH

_OPEN: WeakSet[ProcessEnd] = WeakSet()
_GOOD = (StopIteration, StopAsyncIteration, GeneratorExit)


class ProcessEnd:
    """Ends a session with its process, unless it was ended before.

    An interpreter that ends, and a process of multiprocessing, which ends without the interpreter's own hooks, are
    seen, and so is a signal that ends the process and that nobody handles; a process that calls os._exit is not. A
    forked child leaves the session to its parent. No hook of the user's is replaced. A SystemExit outside of a `with`
    block is none of the exceptions that can be seen: the ring's writer has the core note the code at the very end.

    Args:
        end: Ends the session.
        leave: Has the session do nothing more, in a forked child.
        by_signal: Ends the session from another thread; takes a signal's name, and the time by which it must be done.
    """

    def __init__(
        self, end: Callable[[], None], leave: Callable[[], None], by_signal: Callable[[str, float], None]
    ) -> None:
        self._end, self._by_signal = end, by_signal
        self.leave = leave
        # What is handled where the session begins, or was reported before, has not ended it.
        self._before = {id(error) for error in (sys.exc_info()[1], _reported())}
        atexit.register(end)
        self._finalizer = Finalize(None, end, exitpriority=0)
        WATCH.add(by_signal)
        _OPEN.add(self)

    def cancel(self) -> None:
        """Do nothing at the end of the process."""
        atexit.unregister(self._end)
        self._finalizer.cancel()
        WATCH.remove(self._by_signal)
        _OPEN.discard(self)

    def error(self, *, of_process: bool) -> str:
        """Return the name of the exception that ends the session; empty where there is none.

        Args:
            of_process: Whether the process ends, so that an exception may have ended it.
        """
        error = sys.exc_info()[1]
        if error is None and of_process and not hasattr(sys, "ps1"):  # a notebook goes on after an exception
            error = _reported()
        return "" if id(error) in self._before else error_name(error)


def _leave_all() -> None:
    for end in list(_OPEN):
        end.cancel()
        end.leave()


os.register_at_fork(after_in_child=_leave_all)


def _reported() -> BaseException | None:
    """Return the last exception that the interpreter has reported as not caught."""
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error


def error_name(error: BaseException | None) -> str:
    """Return an exception's name, and an exit code where it is one; empty for a good end.

    A trainer's own kind of SystemExit has a name, and no code: Lightning's at SIGTERM.
    """
    if error is None or isinstance(error, _GOOD):
        return ""
    if type(error) is SystemExit:
        if not error.code:
            return ""
        if error.__context__ is None:
            return f"SystemExit({error.code!r:.20})"
        error = error.__context__  # a launcher's, which has reported another one
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    # A ring has room for so much, and the end of a name says more than its beginning.
    return name if kind.__module__ != "builtins" and len(name.encode()) <= ERROR.size else kind.__qualname__
