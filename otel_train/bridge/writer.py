"""The thread that makes the rows that are due and gives them to wandb, in order."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.order import Due
from otel_train.bridge.sink import RowSink

_log = logging.getLogger(__name__)

MAX_OPEN_RUNS = 32
"""The run that was written least recently is finished when one more is needed; it is opened again when it goes on."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a run that wandb refused is tried again; doubled each time."""
TIDY_INTERVAL = 600.0
STUCK_SECONDS = 120.0
"""After which a call of the sink hangs: wandb's process does not take what it is given."""


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float


@dataclass(slots=True)
class _OpenRun:
    """A run that the sink has open."""

    written: int = -1
    """The ordinal of the last row that was given to the sink."""
    in_flight: dict[int, float] = field(default_factory=dict)
    """When each row was given that is not durable yet, by its ordinal."""


class Writer:
    """Takes rows from the inbox to the sink until it is stopped.

    A row counts as delivered when the sink says that it is durable, so that one which wandb was given and lost, with
    its process or on a full disk, is given again.

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
        """Rows that wandb has durably since the start, and those of them that may lack values."""
        self._pauses: dict[str, _Pause] = {}
        self._open: OrderedDict[str, _OpenRun] = OrderedDict()
        self._failing = False
        self._stopping = threading.Event()
        self._tidied = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="otel_train-bridge-writer", daemon=True)

        self._busy_since: float | None = None
        self._watchdog = threading.Thread(target=self._watch, name="otel_train-bridge-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread, and the one that watches it."""
        self._thread.start()
        self._watchdog.start()

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
        self._sink.prepare()
        more = False
        while not self._stopping.wait(0 if more else self._interval):
            more = self._guarded_pass(self._due)
        # No reason to linger: nothing more arrives. What is incomplete waits for the next bridge.
        while self._guarded_pass(replace(self._due, linger_ns=0)):
            pass
        for run_id in list(self._open):
            self._close(run_id)

    def _guarded_pass(self, due: Due) -> bool:
        """Write some rows of each run, and tell whether there may be more to do at once."""
        more = False
        try:
            for run_id in self._inbox.waiting_runs():
                more |= self._write_run(run_id, due)
            if time.monotonic() - self._tidied > TIDY_INTERVAL:
                self._tidied = time.monotonic()
                self._inbox.tidy(self._now_ns())
            self._failing = False
        except sqlite3.Error as error:  # a full disk; the next pass tries again
            if not self._failing:
                _log.warning("the inbox can't be written, rows wait: %s", error)
            self._failing = True
            return False
        return more

    def _watch(self) -> None:
        while not self._stopping.wait(STUCK_SECONDS / 10):
            since = self._busy_since
            if since is not None and time.monotonic() - since > STUCK_SECONDS:
                _log.error("wandb has not taken a row for %d seconds; its process is ended", STUCK_SECONDS)
                self._sink.abort()

    def _write_run(self, run_id: str, due: Due) -> bool:
        pause = self._pauses.get(run_id)
        if pause is not None and time.monotonic() < pause.until:
            return False
        self._busy_since = time.monotonic()
        try:
            return self._step(run_id, due)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  # wandb raises anything, and none of it may end the thread
            seconds = min(LONGEST_PAUSE, pause.seconds * 2 if pause else FIRST_PAUSE)
            if pause is None:
                _log.warning("wandb does not take run %r (%s: %s); trying again", run_id, type(error).__name__, error)
            self._pauses[run_id] = _Pause(time.monotonic() + seconds, seconds)
            if run_id in self._open:
                self._close(run_id)
            elif not isinstance(error, BridgeError):  # which is ours: wandb was not asked yet
                self._reset()
            return False
        finally:
            self._busy_since = None

    def _step(self, run_id: str, due: Due) -> bool:
        """Make and write some rows, and tell whether there may be more to do now."""
        # Opened before any row is made: an ordinal that wandb has already must not be given again.
        if not self._inbox.undelivered(run_id, limit=1) and not self._inbox.any_due(run_id, due, self._now_ns()):
            return False
        run = self._ensure_open(run_id)
        made = self._inbox.seal(run_id, due, self._now_ns())
        rows = self._inbox.undelivered(run_id, run.written)
        for row in rows:
            self._sink.write(run_id, row)
            run.written = row.ordinal
            run.in_flight[row.ordinal] = time.monotonic()
        before = len(run.in_flight)
        self._note_durable(run_id, run, self._sink.durable(run_id))
        if len(run.in_flight) < before:
            self._pauses.pop(run_id, None)
        oldest = next(iter(run.in_flight.values()), None)
        if oldest is not None and time.monotonic() - oldest > self._sink.patience:
            raise BridgeError(f"{len(run.in_flight)} rows do not become durable; look at its disk and its log")
        return bool(made or rows)

    def _note_durable(self, run_id: str, run: _OpenRun, ordinals: Iterable[int]) -> None:
        durable = list(ordinals)
        if not durable:
            return
        rows, partial = self._inbox.mark_delivered(run_id, durable)
        self.rows += rows
        self.partial_rows += partial
        for ordinal in durable:
            run.in_flight.pop(ordinal, None)

    def _ensure_open(self, run_id: str) -> _OpenRun:
        if run_id in self._open:
            self._open.move_to_end(run_id)
            return self._open[run_id]
        if len(self._open) >= MAX_OPEN_RUNS:
            self._close(next(iter(self._open)))
        unknown = self._inbox.undelivered(run_id, limit=1)
        opened = self._sink.open(run_id, unknown[0].ordinal if unknown else None)
        run = self._open[run_id] = _OpenRun()
        self._note_durable(run_id, run, opened.durable)
        if opened.next_ordinal:
            self._inbox.raise_ordinal(run_id, opened.next_ordinal)
        return run

    def _close(self, run_id: str) -> None:
        run = self._open.pop(run_id, None)
        if run is None:
            return
        try:
            self._note_durable(run_id, run, self._sink.close(run_id))
        except Exception as error:  # noqa: BLE001  # as above
            _log.warning("wandb could not finish run %r (%s: %s)", run_id, type(error).__name__, error)
            self._reset()

    def _reset(self) -> None:
        """Begin anew with all runs: what one has that failed could still come through later, or its id stays taken."""
        self._open.clear()
        self._sink.reset()
