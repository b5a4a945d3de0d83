"""Write rows that are due to wandb, in order, in a thread of its own."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.open_runs import OpenRun, OpenRuns
from otel_train.bridge.row_order import Due
from otel_train.bridge.run_config import config_of
from otel_train.bridge.run_end import RUNS, RunEnd, run_end
from otel_train.bridge.wandb_sink import RowSink
from otel_train.log_once import OutageLogger

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a run that wandb refused is tried again; doubled each time."""
TIDY_INTERVAL = 600.0
LOOK_SECONDS = 0.01
"""Seconds between two looks at what is durable, per open run: a look that sees rows syncs a file."""
RUNS_PER_TRANSACTION = 64
"""Runs whose rows are made in one transaction, for which requests wait."""
FINISHERS = 16
"""Runs that are finished at the same time when the bridge stops; one of them may wait for its server."""
STUCK_SECONDS = 120.0
"""Seconds after which a call of the sink counts as hanging: wandb's process does not read."""


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float


class Writer:
    """Takes rows from the inbox to the sink until it is stopped.

    A row counts as delivered when the sink reports it as durable, so that one which wandb got and lost, with its
    process or on a full disk, is written again.

    A run that the sink refuses is paused, its rows stay in the inbox, and the other runs go on.

    Args:
        inbox: The source of the rows.
        sink: Their destination; used by the writer's thread only.
        due: When a step's row is made.
        open_runs: Which runs the sink has open at once.
        interval: Seconds between looks at the inbox.
        now_ns: The clock of the inbox's times of arrival.
    """

    def __init__(
        self,
        inbox: Inbox,
        sink: RowSink,
        due: Due,
        *,
        open_runs: OpenRuns | None = None,
        interval: float = 0.1,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._inbox = inbox
        self._sink = sink
        self._due = due
        self._interval = interval
        self._now_ns = now_ns
        self.rows = self.partial_rows = 0
        """Rows that wandb has got durably since the start, and those of them that may lack values."""
        self._pauses: dict[str, _Pause] = {}
        self._open = OpenRuns() if open_runs is None else open_runs
        self._outages = OutageLogger(logger)
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
            Whether it finished in time; what was not written stays in the inbox for the next bridge.
        """
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._sink.prepare()
        more = False
        while not self._stopping.wait(0 if more else self._interval):
            more = self._guarded_pass(self._due)
        # Nothing more arrives, so that no step lingers. An incomplete one waits for the next bridge.
        while self._guarded_pass(replace(self._due, linger_ns=0)):
            pass
        self._close_all()

    def _guarded_pass(self, due: Due) -> bool:
        """Write some rows of each run, and tell whether there may be more to do at once."""
        try:
            more = self._pass(due)
            if time.monotonic() - self._tidied > TIDY_INTERVAL:
                self._tidied = time.monotonic()
                self._inbox.tidy(self._now_ns())
            if not more:
                self._inbox.shrink()
            self._outages.worked()
        except sqlite3.Error as error:  # a full disk; the next pass tries again
            self._outages.failed("the inbox can't be written, rows wait: %s", error)
            return False
        return more

    def _pass(self, due: Due) -> bool:
        """Open the runs that have something to write, make their rows, write them, and read what is durable."""
        ready: list[str] = []
        waiting = {**dict.fromkeys(self._inbox.jobs.untold(), False), **self._inbox.waiting_runs()}
        for run_id, unsealed in waiting.items():
            has_work = unsealed or run_id not in self._open or self._open[run_id].has_unwritten
            if has_work and self._guarded(run_id, lambda name: self._opened(name, due)):
                ready.append(run_id)
        more = False
        for first in range(0, len(ready), RUNS_PER_TRANSACTION):
            with self._inbox.transaction():  # one sync of the disk for all
                for run_id in ready[first : first + RUNS_PER_TRANSACTION]:
                    if run_id in self._open:  # else all were given up meanwhile
                        more |= self._guarded(run_id, lambda name: self._inbox.seal(name, due, self._now_ns()) > 0)
        for run_id in ready:
            if run_id in self._open:
                more |= self._guarded(run_id, self._write)
        for run_id in self._open:
            if self._open[run_id].revision != self._inbox.jobs[run_id].revision:
                self._guarded(run_id, self._describe)
        self._look()
        for run_id in self._open.idle(time.monotonic(), lambda name: self._inbox.jobs[name].exit_code is not None):
            self._guarded(run_id, lambda name: self._close(name, silent=True))
        return more

    def _describe(self, run_id: str) -> bool:
        """Tell the sink of the settings of a run's job, which have changed; how it ends is told when it is closed."""
        run, job = self._open[run_id], self._inbox.jobs[run_id]
        self._sink.describe(run_id, config_of(job.settings), RUNS if job.settings and job.exit_code is None else {})
        run.revision = job.revision
        return False

    def _watch(self) -> None:
        while not self._stopping.wait(STUCK_SECONDS / 10):
            since = self._busy_since
            if since is not None and time.monotonic() - since > STUCK_SECONDS:
                logger.error("wandb has not taken a row for %d seconds; its process is ended", STUCK_SECONDS)
                self._sink.abort()

    def _guarded(self, run_id: str, call: Callable[[str], bool]) -> bool:
        """Call a function with a run; one that wandb refuses is paused, and the others go on."""
        pause = self._pauses.get(run_id)
        if pause is not None and time.monotonic() < pause.until:
            return False
        self._busy_since = time.monotonic()
        try:
            return call(run_id)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  # wandb raises anything, and nothing of it may end the thread
            seconds = min(LONGEST_PAUSE, pause.seconds * 2 if pause else FIRST_PAUSE)
            if pause is None:
                logger.warning("wandb does not take run %r (%s: %s); trying again", run_id, type(error).__name__, error)
            self._pauses[run_id] = _Pause(time.monotonic() + seconds, seconds)
            if run_id in self._open:
                self._close(run_id)
            else:
                self._open.pop(run_id)
                if not isinstance(error, BridgeError):  # our own: wandb was not called yet
                    self._reset()
            return False
        finally:
            self._busy_since = None

    def _opened(self, run_id: str, due: Due) -> bool:
        """Tell whether a run has something to write and is open; opens it when it is its turn."""
        if run_id in self._open and (self._open[run_id].has_unwritten or self._inbox.has_unread(run_id)):
            return True
        # Opened before any row is made: an ordinal that wandb has already must not be given again.
        if not self._inbox.any_due(run_id, due, self._now_ns()) and (
            run_id in self._open or not (self._inbox.jobs.is_untold(run_id) or self._inbox.undelivered(run_id, limit=1))
        ):
            return False
        if run_id in self._open:
            return True
        now = time.monotonic()
        if not self._open.admits(run_id, now):
            return False
        surplus = self._open.surplus(now)
        if surplus is not None:
            self._close(surplus)
        unknown = self._inbox.undelivered(run_id, limit=1)
        opened = self._sink.open(run_id, unknown[0].ordinal if unknown else None)
        run = self._open.add(run_id, time.monotonic())
        self._mark_durable({run_id: (run, opened.durable)})
        if opened.next_ordinal:
            self._inbox.raise_ordinal(run_id, opened.next_ordinal)
        self._inbox.seal_at_arrival(run_id, due)
        return True

    def _write(self, run_id: str) -> bool:
        """Write a run's rows to the sink, and tell whether there may be more."""
        run = self._open[run_id]
        rows = self._inbox.undelivered(run_id, run.written)
        for row in rows:
            self._sink.write(run_id, row)
            run.written = row.ordinal
            run.used = run.in_flight[row.ordinal] = time.monotonic()
        run.has_unwritten = bool(rows)
        return run.has_unwritten

    def _look(self) -> None:
        """Mark rows that have become durable as delivered; a run whose rows do not is paused."""
        seen: dict[str, tuple[OpenRun, list[int]]] = {}

        def look(run_id: str) -> bool:
            run = self._open[run_id]
            run.looked = time.monotonic()
            seen[run_id] = run, list(self._sink.durable(run_id))
            return True

        def check(run_id: str) -> bool:
            in_flight = self._open[run_id].in_flight
            if in_flight and time.monotonic() - next(iter(in_flight.values())) > self._sink.patience:
                raise BridgeError(f"{len(in_flight)} rows do not become durable; look at its disk and its log")
            return True

        pause = LOOK_SECONDS * len(self._open)
        for run_id in self._open:
            run = self._open[run_id]
            if run.in_flight and time.monotonic() - run.looked >= pause:
                self._guarded(run_id, look)
        self._mark_durable(seen)
        for run_id, (_, ordinals) in seen.items():
            if ordinals:
                self._pauses.pop(run_id, None)
            if run_id in self._open:
                self._guarded(run_id, check)

    def _mark_durable(self, seen: Mapping[str, tuple[OpenRun, Iterable[int]]]) -> None:
        durable = {run_id: [*ordinals] for run_id, (_, ordinals) in seen.items()}
        if not any(durable.values()):
            return
        rows = partial = 0
        with self._inbox.transaction(durable=False):
            for run_id, ordinals in durable.items():
                if ordinals:
                    marked, lacking = self._inbox.mark_delivered(run_id, ordinals)
                    rows, partial = rows + marked, partial + lacking
        self.rows += rows
        self.partial_rows += partial
        for run_id, ordinals in durable.items():
            for ordinal in ordinals:
                seen[run_id][0].in_flight.pop(ordinal, None)

    def _close(self, run_id: str, *, silent: bool = False) -> bool:
        """Finish a run; `silent` where nothing of it has come for long."""
        run = self._open.pop(run_id)
        self._inbox.seal_on_request(run_id)
        if run is not None:
            try:
                end = run_end(self._inbox.jobs[run_id], silent=silent)
                self._note_closed(run_id, run, end, self._sink.close(run_id, end))
            except sqlite3.Error:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                logger.warning("wandb could not finish run %r (%s: %s)", run_id, type(error).__name__, error)
                self._reset()
        return False

    def _note_closed(self, run_id: str, run: OpenRun, end: RunEnd, durable: Iterable[int]) -> None:
        self._mark_durable({run_id: (run, durable)})
        if end.is_final and end.revision:
            with self._inbox.transaction(durable=False):
                self._inbox.jobs.note_told(run_id, end.revision)

    def _close_all(self) -> None:
        """Finish every run, many at the same time: a finish waits for a file or a server."""
        ends = {run_id: run_end(self._inbox.jobs[run_id], silent=False) for run_id in self._open}
        with ThreadPoolExecutor(FINISHERS, thread_name_prefix="otel_train-bridge-finish") as pool:
            closing = {run_id: pool.submit(self._sink.close, run_id, end) for run_id, end in ends.items()}
        for run_id, closed in closing.items():
            run = self._open.pop(run_id)
            error = closed.exception()
            if error is not None:
                logger.warning("wandb could not finish run %r (%s: %s)", run_id, type(error).__name__, error)
            elif run is not None:
                self._note_closed(run_id, run, ends[run_id], closed.result())

    def _reset(self) -> None:
        """Give up all open runs: rows of one that failed could still arrive later, or its id stays taken."""
        self._open.clear()
        self._inbox.seal_on_request()
        self._sink.reset()
