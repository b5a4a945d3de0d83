"""Make the rows of steps that are due: a row, its ordinal and the totals that it leaves are final together."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from otel_train.bridge.arrivals import Begun
from otel_train.bridge.inbox_store import Store, build_rows
from otel_train.bridge.past_steps import PastSteps
from otel_train.bridge.row_order import Due, Pending
from otel_train.bridge.wandb_rows import Arrived, Row, SeriesKey
from otel_train.catalogue import PARTIAL_KEY
from otel_train.log_once import OnceLogger

logger = logging.getLogger(__name__)

CACHED_TOTALS = 1024
"""Attempts whose totals are kept in memory."""


class Sealing:
    """Makes rows, within the transactions of an inbox.

    Args:
        store: Its database.
        past_steps: The steps that are not waited for any more.
    """

    def __init__(self, store: Store, past_steps: PastSteps) -> None:
        self._store = store
        self._past_steps = past_steps
        self._totals_of: dict[tuple[int, int], dict[SeriesKey, float]] = {}
        """Totals of attempts that got rows lately."""
        self._warnings = OnceLogger(logger)
        self.nameless = 0
        """Points of steps whose `train.step` never came: nobody knows where on the axis they belong."""

    def forget(self) -> None:
        """Drop the totals: those of a transaction that failed were never reached."""
        self._totals_of.clear()

    def seal(self, key: int, steps: Sequence[Pending], due: Due, now_ns: int) -> int:
        """Make the rows of those of a run's steps that are due, and return how many.

        Args:
            key: The run.
            steps: Its first steps without a row, in the order of attempt and time stamp.
            due: Which steps are due.
            now_ns: The present time.
        """
        store, execute, made = self._store, self._store.connection.execute, 0
        for ordinal, step, row in self._rows(key, ((step, store.arrived(step)) for step in steps), steps, due, now_ns):
            if row is None:
                execute("DELETE FROM steps WHERE id = ?", (step.id,))
            else:
                partial = PARTIAL_KEY in row
                execute("UPDATE steps SET partial = ?, ordinal = ? WHERE id = ?", (partial, ordinal, step.id))
                execute("INSERT INTO rows VALUES (?, ?)", (step.id, json.dumps(row)))
            table = "points" if step.together is None else "together"
            execute(f"DELETE FROM {table} WHERE step = ?", (step.id,))  # noqa: S608  # one of two names
            made += 1
        return made

    def seal_begun(self, steps: Sequence[Begun], due: Due, now_ns: int) -> int:
        """Make rows of steps that are in no table yet, as `seal` does: they are stored as rows at once.

        Args:
            steps: Of one run, which has no others without a row, in the order of attempt and time stamp.
            due: Which steps are due.
            now_ns: The present time.
        """
        run, connection = steps[0].run, self._store.connection
        pending = [begun.pending for begun in steps]
        arrived = ((begun.pending, begun.arrived()) for begun in steps)
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM steps").fetchone()
        sealed, made = [], 0
        for key, (ordinal, step, row) in enumerate(self._rows(run, arrived, pending, due, now_ns), last + 1):
            made += 1
            if row is None:
                continue
            connection.execute("INSERT INTO rows VALUES (?, ?)", (key, json.dumps(row)))
            columns = (run, step.attempt, step.time_ns, step.step, step.number, step.expected, step.arrived)
            sealed.append((key, *columns, step.first_ns, step.last_ns, ordinal, PARTIAL_KEY in row))
        connection.executemany(
            "INSERT INTO steps"
            " (id, run, attempt, time_ns, step, number, expected, arrived, first_ns, last_ns, ordinal, partial)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sealed,
        )
        return made

    def _rows(
        self,
        key: int,
        arrived: Iterable[tuple[Pending, Iterable[Arrived]]],
        steps: Sequence[Pending],
        due: Due,
        now_ns: int,
    ) -> Iterator[tuple[int, Pending, Row | None]]:
        """Yield ordinal, step and row of the first steps that are due, and at the end store how far the run is.

        A step whose `train.step` never came has no row: wandb would draw it at the step of the row before, or at 0.
        Its counts are in the next row.
        """
        store, execute = self._store, self._store.connection.execute
        attempts = store.attempts(key, {step.attempt for step in steps})
        newest = {attempt: progress.newest_ns for attempt, progress in attempts.items()}
        count = sum(1 for _ in due.in_order(steps, attempts, now_ns))
        if not count:
            return
        totals = {step.attempt: self._last_totals(key, step.attempt) for step in steps[:count]}
        changed: dict[int, dict[SeriesKey, float]] = {attempt: {} for attempt in totals}
        (ordinal,) = execute("SELECT next_ordinal FROM runs WHERE id = ?", (key,)).fetchone()
        for step, points in islice(arrived, count):
            if step.step is None:
                self._give_up(key, step)
                yield ordinal, step, None
                continue
            (built,) = build_rows([(step, points)], newest, totals)
            changed[step.attempt].update(built.totals)
            yield ordinal, step, built.row
            ordinal += 1
        execute("UPDATE runs SET next_ordinal = ? WHERE id = ?", (ordinal, key))
        for attempt, values in changed.items():
            store.connection.executemany(
                "INSERT OR REPLACE INTO totals SELECT ?, ?, id, ? FROM series WHERE name = ? AND modality = ?",
                [(key, attempt, value, *series) for series, value in values.items()],
            )
            progress = attempts[attempt]
            execute(
                "UPDATE attempts SET next_number = ?, newest_ns = ?, floor_ns = ?, gap_ns = ?"
                " WHERE run = ? AND attempt = ?",
                (progress.next_number, progress.newest_ns, progress.floor_ns, progress.gap_ns, key, attempt),
            )

    def _give_up(self, key: int, step: Pending) -> None:
        """Note that a step has no row and gets none; what comes of it later is counted as late."""
        self._past_steps.remember(key, step.attempt, step.time_ns, partial=1)
        self.nameless += step.arrived
        self._warnings.warn(
            "nameless",
            "points are left out, bridge.points.late counts them: there is no train.step at their time stamp, "
            "and nothing tells where on the axis they belong; its records need one",
        )

    def _last_totals(self, key: int, attempt: int) -> dict[SeriesKey, float]:
        """Return the totals of an attempt as of its last row; what is changed in them is kept."""
        if (key, attempt) not in self._totals_of:
            if len(self._totals_of) >= CACHED_TOTALS:
                self._totals_of.clear()
            self._totals_of[key, attempt] = self._store.totals(key, attempt)
        return self._totals_of[key, attempt]
