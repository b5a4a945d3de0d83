"""The thread that makes the rows that are due and gives them to wandb, in order."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from otel_train.bridge.inbox import Due, Inbox
from otel_train.bridge.rows import PARTIAL_KEY
from otel_train.bridge.sink import RowSink

_log = logging.getLogger(__name__)

MAX_OPEN_RUNS = 32
"""The run that was written least recently is finished when one more is needed; it is opened again when it goes on."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a run that wandb refused is tried again; doubled each time."""
TIDY_INTERVAL = 600.0


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float


class Writer:
    """Takes rows from the inbox to the sink until it is stopped.

    A run that the sink refuses is paused, its rows stay in the inbox, and the other runs go on.

    Args:
        inbox: Where the points are.
        sink: Where the rows go; used by the writer's thread only.
        due: When a step's row is made.
        interval: Seconds between looks at the inbox.
        now_ns: The clock that the inbox's times of arrival are of.
    """

    def __init__(
        self,
        inbox: Inbox,
        sink: RowSink,
        due: Due,
        *,
        interval: float = 0.1,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._inbox = inbox
        self._sink = sink
        self._due = due
        self._interval = interval
        self._now_ns = now_ns
        self.rows = self.partial_rows = 0
        """Rows given to wandb since the start, and those of them that may lack values."""
        self._pauses: dict[str, _Pause] = {}
        self._open: OrderedDict[str, None] = OrderedDict()
        self._stopping = threading.Event()
        self._tidied = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="otel_train-bridge-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write every complete step of the runs that are not paused, finish all runs and end the thread.

        Args:
            timeout: Seconds to wait for that.

        Returns:
            Whether it got done; what was not written stays in the inbox for the next bridge.
        """
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._guarded_pass(self._due)
        # No reason to linger: nothing more arrives. What is incomplete waits for the next bridge.
        self._guarded_pass(replace(self._due, linger_ns=0))
        for run_id in list(self._open):
            self._close(run_id)

    def _guarded_pass(self, due: Due) -> None:
        try:
            for run_id in self._inbox.waiting_runs():
                self._write_run(run_id, due)
            if time.monotonic() - self._tidied > TIDY_INTERVAL:
                self._tidied = time.monotonic()
                self._inbox.forget_abandoned(self._now_ns())
        except sqlite3.Error as error:  # a full disk; the next pass tries again
            _log.warning("the inbox can't be written: %s", error)

    def _write_run(self, run_id: str, due: Due) -> None:
        pause = self._pauses.get(run_id)
        if pause is not None and time.monotonic() < pause.until:
            return
        try:
            while True:
                # Opened before any row is made: an ordinal that wandb has already must not be given again.
                if not self._inbox.undelivered(run_id, 1) and not self._inbox.any_due(run_id, due, self._now_ns()):
                    return
                self._ensure_open(run_id)
                self._inbox.seal(run_id, due, self._now_ns())
                self._deliver(run_id)
                self._pauses.pop(run_id, None)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  # wandb raises anything, and none of it may end the thread
            seconds = min(LONGEST_PAUSE, pause.seconds * 2 if pause else FIRST_PAUSE)
            if pause is None:
                _log.warning("wandb does not take run %r (%s: %s); trying again", run_id, type(error).__name__, error)
            self._pauses[run_id] = _Pause(time.monotonic() + seconds, seconds)
            self._close(run_id)

    def _deliver(self, run_id: str) -> None:
        written = []
        try:
            for row in self._inbox.undelivered(run_id):
                self._sink.write(run_id, row)
                written.append(row)
        finally:  # also when one in the middle fails: those before it must not be written again
            self._inbox.mark_delivered(run_id, written)
            self.rows += len(written)
            self.partial_rows += sum(PARTIAL_KEY in row.row for row in written)

    def _ensure_open(self, run_id: str) -> None:
        if run_id not in self._open and len(self._open) >= MAX_OPEN_RUNS:
            self._close(next(iter(self._open)))
        lowest = self._sink.open(run_id)
        self._open[run_id] = None
        self._open.move_to_end(run_id)
        if lowest:
            self._inbox.raise_ordinal(run_id, lowest)

    def _close(self, run_id: str) -> None:
        self._open.pop(run_id, None)
        try:
            self._sink.close(run_id)
        except Exception as error:  # noqa: BLE001  # as above
            _log.warning("wandb could not finish run %r (%s: %s)", run_id, type(error).__name__, error)
