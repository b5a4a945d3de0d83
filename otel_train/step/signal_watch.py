"""End the sessions of a process that a signal ends: within a bound of time, and without a handler that Python sees."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from otel_train.descriptors import standard_descriptors
from otel_train.native import core
from otel_train.step.thread_frames import frames_of_threads

BOUND = 2.0
"""Seconds between a signal and the process's end at most."""
_MARGIN = 0.2
"""Seconds before that at which sessions are waited for no longer."""
_SIGNALS = (int(signal.SIGTERM), int(signal.SIGHUP))
"""Signals that schedulers and launchers, and a terminal that goes away, end a process with."""
_STOP = b"\0"
_PAUSE = 0.0005
_LOOK = 0.01
"""Seconds between two looks at whether the process goes on."""
_SWITCH_INTERVAL, _LONG_INTERVAL = 0.005, 0.1
"""Seconds for which a thread that runs keeps others waiting: Python's own, and one in which a row is measured."""
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_ENTRIES = tuple(
    f"{_PACKAGE}step{os.sep}{name}.py" for name in ("admission", "recorder", "recording", "session_end", "telemetry")
)
"""Files that a thread is in while it makes a step."""
_COUNTS = f"{_PACKAGE}mixing{os.sep}"
"""Files whose code counts what a row has; users' code that they call, such as a reader, may take long."""

End = Callable[[str, float], None]
"""Ends a session; takes the signal's name, and when it has to be done by the steady clock."""


class SignalWatch:
    """The process's watch for signals whose default is to end it, while sessions are open.

    A signal that somebody handles, or ignores, is theirs; so it is from the moment at which they say so, and what they
    do then decides how sessions end; who says so while sessions are being ended has a process that goes on, without
    them. The first process of a container, which the kernel protects from such signals, has
    none. In a forked child nothing is watched.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ends: list[End] = []
        self._enders: set[int] = set()
        """Threads that end sessions."""
        self._thread: threading.Thread | None = None
        self._pipe = -1, -1

    def add(self, end: End) -> None:
        """Have a signal end a session before the process."""
        with self._lock:
            self._ends.append(end)
            if self._thread is None and core is not None and os.getpid() != 1:
                self._begin()

    def remove(self, end: End) -> None:
        """Leave out a session that has ended; where it was the last one, give the signals back."""
        with self._lock:
            if end in self._ends:
                self._ends.remove(end)
            thread, pipe = self._thread, self._pipe
            if self._ends or self.came or thread is None:
                return
            _leave()
            os.write(pipe[1], _STOP)
            self._thread, self._pipe = None, (-1, -1)
        thread.join()  # without the lock: where a signal has come after all, the thread takes it
        _close(pipe)

    @property
    def came(self) -> bool:
        """Whether a signal has come, so that the process is about to end."""
        return core is not None and core.signal_came()

    def _begin(self) -> None:
        assert core is not None, "its twins watch nothing"
        core.forget_signal()
        with contextlib.suppress(OSError, RuntimeError):  # no descriptor, or no thread, is left: as without a watch
            with standard_descriptors():
                self._pipe = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._pipe[1], False)
            bound_ns = int(BOUND * 1e9)
            watched = [core.watch_signal(number, self._pipe[1], bound_ns) for number in _SIGNALS]
            if any(watched):
                run = partial(self._run, self._pipe[0])
                self._thread = threading.Thread(target=run, name="otel_train signals", daemon=True)
                self._thread.start()
                return
        _leave()
        self._close_pipe()

    def _close_pipe(self) -> None:
        _close(self._pipe)
        self._thread, self._pipe = None, (-1, -1)

    def _run(self, reader: int) -> None:
        data = os.read(reader, 1)
        if data == _STOP:
            return
        number = data[0]
        name, deadline = signal.Signals(number).name, time.monotonic() + BOUND - _MARGIN
        try:
            self._end_all(name, deadline)
        finally:
            _leave()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            signal.raise_signal(number)
            self._go_on()

    def _end_all(self, name: str, deadline: float) -> None:
        enders = [threading.Thread(target=self._call, args=(end, name, deadline), daemon=True) for end in self._ends]
        for ender in enders:
            try:
                ender.start()
            except RuntimeError:  # from Python 3.12 on an interpreter that ends starts no thread
                ender.run()
        for ender in enders:
            if ender.is_alive():
                ender.join(max(0.0, deadline - time.monotonic()))

    def _go_on(self) -> None:
        """Watch anew: the signal did not end the process, for somebody has taken it since it came."""
        with self._lock:
            if core is not None:
                core.forget_signal()
            if self._thread is threading.current_thread():
                self._close_pipe()
                if self._ends:
                    self._begin()

    def _call(self, end: End, name: str, deadline: float) -> None:
        self._enders.add(threading.get_ident())
        with contextlib.suppress(Exception):  # no traceback at a process's end by a signal
            end(name, deadline)

    def await_end(self) -> bool:
        """Wait for the process's end, where a signal has come: nothing more is recorded, and it must not end by itself.

        Returns:
            Whether one has, and the process still ends; not where somebody has taken the signal, so that it goes on.
        """
        if core is None or not core.signal_came():
            return False
        until = time.monotonic() + BOUND
        while core.signal_came() and time.monotonic() < until:
            time.sleep(_LOOK)
        return bool(core.signal_came())

    @contextlib.contextmanager
    def undisturbed(self, making_step: Callable[[], bool], deadline: float) -> Iterator[bool]:
        """Keep other threads from running during a block that waits for nothing, when none is making a step.

        Args:
            making_step: Tells whether the core is.
            deadline: How long such a thread is waited for, by the steady clock.

        Yields:
            Whether none is.
        """
        try:
            while True:
                sys.setswitchinterval(_LONG_INTERVAL)
                if not (making_step() or self._anybody_inside()):
                    yield True
                    return
                sys.setswitchinterval(_SWITCH_INTERVAL)
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(_PAUSE)
        finally:
            sys.setswitchinterval(_SWITCH_INTERVAL)

    def _anybody_inside(self) -> bool:
        """Tell whether a thread makes a step, or counts something, right now."""
        for thread, innermost in frames_of_threads().items():
            if thread in self._enders or innermost.f_code is _AWAIT_END:
                continue
            if innermost.f_code.co_filename.startswith(_COUNTS):
                return True
            frame = innermost
            while frame is not None:
                if frame.f_code.co_filename in _ENTRIES:
                    return True
                frame = frame.f_back  # type: ignore[assignment]
        return False

    def leave_to_parent(self) -> None:
        """Watch nothing in a forked child."""
        if self._thread is not None:
            _leave()
            self._close_pipe()
        self.__init__()  # type: ignore[misc]


def _close(pipe: tuple[int, int]) -> None:
    for descriptor in pipe:
        if descriptor >= 0:
            os.close(descriptor)


def _leave() -> None:
    if core is not None:
        for number in _SIGNALS:
            core.leave_signal(number)


_AWAIT_END = SignalWatch.await_end.__code__
WATCH = SignalWatch()
"""The process's."""
os.register_at_fork(after_in_child=WATCH.leave_to_parent)
