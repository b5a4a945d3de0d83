"""End a session's recording: what is left goes into the ring and over the ranks, within a bound of time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from otel_train.ring import End
from otel_train.step.clock import StepClock, wait_until
from otel_train.step.signal_watch import BOUND, WATCH

if TYPE_CHECKING:
    from otel_train.step.recording import Recording
    from otel_train.step.sidecar_process import SidecarProcess

logger = logging.getLogger(__name__)

CLOSED = (
    "telemetry: %s came after close(), and nothing is recorded any more; begin another session with otel_train.init()"
)
"""Message about a call after the end."""
ENDING = "telemetry: %s came after the process had begun to end, and nothing is recorded any more"
"""Message about a call while another thread ends the process."""
FORKED = (
    "telemetry: %s in a process that was forked after otel_train.init(), and nothing of it is recorded; call "
    "otel_train.init() in the function that the launcher runs in each process"
)
"""Message about a call in a forked child."""
UNMADE = "telemetry: values that came before the first step are lost: it never came"
"""Message at the end of a session without a step."""
_AS_EVER = 0.05
"""Seconds for which a moment is looked for, after a signal, in which no step is being made."""


class SessionEnd:
    """End of a session's recording, by its user, with its process, or by a signal.

    Args:
        clock: The session's.
        timeout: Seconds that it takes at most.
    """

    def __init__(self, clock: StepClock, timeout: float) -> None:
        self._clock, self._timeout = clock, timeout
        self._recorded = False
        """Whether the ring says that the session has ended."""
        self._ender, self._exits_by = 0, 0.0
        """Thread that ends the process, and until when others that would make steps are held."""

    def close(
        self, running: Recording, sidecar: SidecarProcess | None, end: End, error: str, *, delivers: bool
    ) -> None:
        """Record what is left, and wait for the sidecar.

        Args:
            running: The session's.
            sidecar: The process that this rank has started, if it has.
            end: How the session ends.
            error: Name of the exception that it ends with.
            delivers: Whether what is recorded is sent anywhere.
        """
        deadline = time.monotonic() + self._timeout
        ended = self._clock.newest
        time_ns = self._clock.stamp(time.perf_counter())
        ring = running.ring
        try:
            running.close(time_ns, ended, self._timeout)
        finally:
            if ring is not None:
                ring.close(running.steps.last_step, time_ns, end, error)
            self._recorded = True
        if ring is None:
            return
        if not await_sidecar(running, max(0.0, deadline - time.monotonic()), delivers=delivers):
            remaining = ring.written - ring.acknowledged
            if sidecar is not None:
                sidecar.tell_what_remains(remaining)
            elif delivers:
                logger.info("telemetry: %d records remain in %s for the sidecar", remaining, ring.path)
        ring.release()

    def begin(self, end: End) -> str:
        """Return the message about calls from now on; where the process ends, threads make no more steps."""
        if end is not End.PROCESS:
            return CLOSED
        self._ender, self._exits_by = threading.get_ident(), time.monotonic() + self._timeout + BOUND
        return ENDING

    def await_exit(self) -> bool:
        """Wait for the process's end, for a while, where a signal or another thread ends it: a step would be lost.

        A pool that stops ends its processes while the user's function still runs.

        Returns:
            Whether a signal has come, and the process still ends.
        """
        if WATCH.await_end():
            return True
        if threading.get_ident() != self._ender:
            time.sleep(max(0.0, self._exits_by - time.monotonic()))
        return False

    def await_recorded(self, deadline: float) -> None:
        """Wait until another thread, which closes the session, has recorded what is left.

        Args:
            deadline: Until when, by the steady clock.
        """
        wait_until(lambda: self._recorded, deadline - time.monotonic())

    def by_signal(self, running: Recording, name: str, deadline: float, let_go: Callable[[], None]) -> None:
        """Record what is left while other threads are anywhere; the process ends then, and nothing is given back.

        Args:
            running: The session's.
            name: The signal's.
            deadline: When it has to be done, by the steady clock.
            let_go: Has nobody make a step any more, but for one that is being made.
        """
        deadline = min(deadline, time.monotonic() + self._timeout)
        running.reducer.hurries = True
        now, steps = time.monotonic(), running.steps
        time_ns, rest = 0, None
        try:
            # At first steps are made as ever, so that what is counted meanwhile is of steps that are recorded.
            for until in (now + _AS_EVER, (now + deadline) / 2):
                with WATCH.undisturbed(lambda: bool(steps.busy), until) as alone:
                    let_go()
                    ended = self._clock.newest
                    time_ns = self._clock.stamp(time.perf_counter())
                    rest = running.measure_rest(time_ns, ended) if alone else None
                if alone:
                    break
            running.cluster.end(steps.last_step, time_ns, rest, deadline)
        finally:
            if running.ring is not None:
                running.ring.close(steps.last_step, time_ns or time.time_ns(), End.SIGNAL, name)


def await_sidecar(running: Recording, timeout: float, *, delivers: bool) -> bool:
    """Wait until all that a ring has is acknowledged, `timeout` seconds at most, and tell whether it is."""
    ring = running.ring
    if ring is None or not delivers:
        return False
    wait_until(lambda: running.reducer.hurries or ring.acknowledged >= ring.written, timeout)
    return ring.acknowledged >= ring.written
