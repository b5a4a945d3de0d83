"""Put off the end of a session that is closed in the middle of one of its own calls, until that call has returned."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from otel_train.ring import End
from otel_train.step.core_steps import CoreSteps
from otel_train.step.signal_watch import WATCH
from otel_train.step.thread_frames import frame_of

if TYPE_CHECKING:
    from otel_train.step.recording import Recording

_FOLDER = Path(__file__).parent
_CALLS = {
    str(_FOLDER / f"{name}.py")
    for name in ("admission", "cluster_values", "first_step", "recorder", "recording", "telemetry")
}
"""Files that a thread is in while it makes a call of a session's."""
_ENDS = {"close", "_end", "__exit__"}
"""Functions in them that the end itself comes through."""
_PAUSE = 0.0005
"""Seconds between two looks at whether the call has returned."""
_MARGIN = 1.0
"""Seconds beyond its own bound for which an end that was put off is waited for."""


class EndAfterCall:
    """Ends a session at once, or, where the calling thread is in the middle of one of its calls, after that call.

    A signal's handler, or a `__del__` that the garbage collector calls, may interrupt the training thread anywhere:
    where it holds a lock that the end needs, or between a step's record and its reduction. The end is then made by a
    thread of its own as soon as the interrupted call has returned.

    Args:
        steps: The session's.
        timeout: Seconds that the end takes at most.
    """

    def __init__(self, steps: CoreSteps, timeout: float) -> None:
        self._steps, self._timeout = steps, timeout
        self._thread: threading.Thread | None = None

    def end(
        self, finish: Callable[[End, str], None], end: End, error: str, running: Callable[[], Recording | None]
    ) -> None:
        """End the session, now or after the call.

        Args:
            finish: Ends it; takes the next two.
            end: How it ends.
            error: Name of the exception that it ends with.
            running: Returns the session's recording, as soon as there is one.
        """
        caller, is_inside = threading.get_ident(), self._amid_call()
        if not (is_inside or self._steps.busy):
            finish(end, error)
            return
        recording = running()
        if recording is not None and recording.ring is not None:
            # Who has closed the session may end the process before the call returns.
            recording.ring.close(recording.steps.last_step, time.time_ns(), end, error, is_ending=True)
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

        def run(bound: float = math.inf) -> None:
            if not self._await_return(caller, running, bound):
                return
            if device is not None:  # what the call has left there is to be complete for this thread too
                torch.cuda.set_device(device)
                torch.cuda.synchronize()
            finish(end, error)

        thread = threading.Thread(target=run, name="otel_train end", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:  # none is to be had, as while a process ends from Python 3.12 on; the ring has the end
            if not is_inside:
                run(self._timeout + _MARGIN)
        self.wait()  # where another thread makes the step

    def _await_return(self, caller: int, running: Callable[[], Recording | None], bound: float) -> bool:
        """Wait until a thread's call, and the core's, has returned, and tell whether it has; it waits for nobody."""
        deadline = time.monotonic() + bound
        while self._steps.busy or _makes_call(caller):
            if time.monotonic() > deadline:
                return False
            if (recording := running()) is not None:
                recording.reducer.hurries = True
            time.sleep(_PAUSE)
        if (recording := running()) is not None:
            recording.reducer.hurries = WATCH.came
        return True

    def wait(self) -> None:
        """Wait for an end that was put off; not in the middle of a call, for whose return the end waits."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self._amid_call():
            thread.join(self._timeout + _MARGIN)

    def _amid_call(self) -> bool:
        """Tell whether this thread is in the middle of a call, be it of the core's."""
        thread = threading.get_ident()
        return self._steps.busy == thread or _makes_call(thread)


def _makes_call(thread: int) -> bool:
    """Tell whether a thread is in the middle of a call of a session's."""
    frame = frame_of(thread)
    while frame is not None:
        if frame.f_code.co_filename in _CALLS and frame.f_code.co_name not in _ENDS:
            return True
        frame = frame.f_back
    return False
