"""Take points into the inbox's tables: each once, however often it comes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_train.bridge.decode import Kind, Point, StepId
from otel_train.bridge.wandb_rows import SeriesKey
from otel_train.catalogue import cluster_name, rows

MAX_STEP_POINTS = 10_000
"""A step that has this many points takes no more: a row's size is bounded whatever is sent."""
CACHED_RUNS, CACHED_SERIES = 4096, 200_000
"""Runs and series of runs whose keys are kept in memory; all are looked up again beyond that."""
SAME_ARRIVAL_NS = 10**8
"""Arrivals so close to each other are not told apart."""
_MOST = 2**62
_STEP_POINTS = cluster_name(rows.STEP_POINTS.name)
_STEP_ORDINAL = cluster_name(rows.STEP_ORDINAL.name)
_Taken = dict[int, tuple[int, int, float]]
"""Series, kind and value, by series."""


@dataclass(slots=True)
class Added:
    """Counts of a request's points: the new ones, and the others by reason."""

    new: int = 0
    duplicates: int = 0
    """Points that were there already, or of a step whose whole row is made."""
    late: int = 0
    """Points of a step whose row was made without all of its points, which may be those that it lacks, and points of a
    step that comes after a later one's row."""
    refused: int = 0
    """Points beyond the bound of series of a run or of points of a step; the step's row will be partial."""


@dataclass(slots=True)
class _Step:
    """Step, number and counts that the points of a step tell."""

    step: int | None = None
    number: int | None = None
    expected: int | None = None
    arrived: int = 0


class Arrivals:
    """Adds points, within the transactions of its inbox.

    Args:
        connection: The inbox's.
        max_series: The number of series that a run may have.
    """

    def __init__(self, connection: sqlite3.Connection, max_series: int) -> None:
        self._connection = connection
        self._max_series = max_series
        self._runs: dict[str, int] = {}
        self._series_of_run: dict[int, dict[SeriesKey, int]] = {}
        self._cached_series = 0

    def forget(self) -> None:
        """Drop the keys that were looked up: those of a transaction that failed were never given."""
        self._runs.clear()
        self._series_of_run.clear()
        self._cached_series = 0

    def take(self, step_id: StepId, points: Sequence[Point], now_ns: int, added: Added) -> int:
        """Add points of one step, count them in `added`, and return the run's key.

        The points that come first are one entry until the step's row is made or more come: a sidecar, and a collector
        after it, send all of a step at once.
        """
        execute = self._connection.execute
        run = self._run_key(step_id.run_id)
        newest_ns, floor_ns = self._attempt(run, step_id.attempt, now_ns)
        row = execute(
            "SELECT id, step, number, expected, arrived, ordinal, partial FROM steps"
            " WHERE run = ? AND attempt = ? AND time_ns = ?",
            (run, step_id.attempt, step_id.time_ns),
        ).fetchone()
        if row is None:
            past = self._past(run, step_id, floor_ns)
            if past is None:
                self._begin(run, step_id, points, now_ns, added, late=step_id.time_ns < newest_ns)
            else:
                _count_repeated(points, added, partial=past)
            return run
        key, *columns, ordinal, partial = row
        if ordinal is not None:
            _count_repeated(points, added, partial=partial)
            return run
        step = _Step(*columns)
        had_step = step.step is not None
        taken = self._read(run, points, step, added)
        inserted = self._join(key, taken)
        new_step = step.step is not None and not had_step
        added.new += inserted + new_step
        added.duplicates += len(taken) - inserted
        if inserted or new_step:
            execute(
                "UPDATE steps SET step = ?, number = ?, expected = ?, arrived = ?, last_ns = ? WHERE id = ?",
                (step.step, step.number, step.expected, step.arrived + inserted, now_ns, key),
            )
        return run

    def _attempt(self, run: int, attempt: int, now_ns: int) -> tuple[int, int]:
        """Note that points of an attempt arrived; return its newest time stamp with a row, and its floor."""
        progress = self._connection.execute(
            "SELECT newest_ns, floor_ns, last_ns FROM attempts WHERE run = ? AND attempt = ?", (run, attempt)
        ).fetchone()
        if progress is None:
            self._connection.execute(
                "INSERT INTO attempts (run, attempt, last_ns) VALUES (?, ?, ?)", (run, attempt, now_ns)
            )
            return 0, 0
        newest_ns, floor_ns, last_ns = progress
        if abs(now_ns - last_ns) > SAME_ARRIVAL_NS:
            self._connection.execute(
                "UPDATE attempts SET last_ns = ? WHERE run = ? AND attempt = ?", (now_ns, run, attempt)
            )
        return newest_ns, floor_ns

    def _past(self, run: int, step_id: StepId, floor_ns: int) -> bool | None:
        """Return None for a step that is not in wandb, else whether its row there is partial."""
        row = self._connection.execute(
            "SELECT partial FROM past WHERE run = ? AND attempt = ? AND time_ns = ?",
            (run, step_id.attempt, step_id.time_ns),
        ).fetchone()
        if row is not None:
            return bool(row[0])
        return False if step_id.time_ns <= floor_ns else None

    def _begin(
        self, run: int, step_id: StepId, points: Sequence[Point], now_ns: int, added: Added, *, late: bool
    ) -> None:
        """Add the first points of a step."""
        step = _Step()
        taken = self._read(run, points, step, added)
        key = self._connection.execute(
            "INSERT INTO steps (run, attempt, time_ns, step, number, expected, arrived, first_ns, last_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run, step_id.attempt, step_id.time_ns, step.step, step.number, step.expected),
                *(len(taken), now_ns, now_ns),
            ),
        ).lastrowid
        if taken:
            self._connection.execute("INSERT INTO together VALUES (?, ?)", (key, json.dumps([*taken.values()])))
        added.new += len(taken) + (step.step is not None)
        added.late += len(taken) if late else 0

    def _read(self, run: int, points: Sequence[Point], step: _Step, added: Added) -> _Taken:
        """Return the points that are values, and set in `step` what the others tell of it."""
        taken: _Taken = {}
        for point in points:
            if point.name == rows.STEP.name:
                if step.step is None:
                    step.step = int(point.value)
                continue
            series = self._series_key(run, (point.name, point.modality))
            if series is None or step.arrived + len(taken) >= MAX_STEP_POINTS:
                added.refused += 1
                continue
            if series in taken:
                added.duplicates += 1
                continue
            taken[series] = (series, point.kind, point.value)
            if point.kind is Kind.VALUE and point.value >= 1:
                if point.name == _STEP_POINTS and step.expected is None:
                    step.expected = int(min(point.value, _MOST))
                elif point.name == _STEP_ORDINAL and step.number is None:
                    step.number = int(min(point.value, _MOST))
        return taken

    def _join(self, key: int, taken: _Taken) -> int:
        """Add those points of a step that are missing, and return how many; each is an entry from now on."""
        if not taken:
            return 0
        row = self._connection.execute("DELETE FROM together WHERE step = ? RETURNING points", (key,)).fetchone()
        if row is not None:
            self._insert(key, json.loads(row[0]))
        return self._insert(key, taken.values())

    def _insert(self, key: int, taken: Iterable[Sequence[float]]) -> int:
        return self._connection.executemany(
            "INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?)", [(key, *point) for point in taken]
        ).rowcount

    def _run_key(self, run_id: str) -> int:
        if run_id not in self._runs:
            if len(self._runs) >= CACHED_RUNS or self._cached_series > CACHED_SERIES:
                self.forget()
            self._connection.execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))
            (self._runs[run_id],) = self._connection.execute(
                "SELECT id FROM runs WHERE run_id = ?", (run_id,)
            ).fetchone()
        return self._runs[run_id]

    def _series_key(self, run: int, series: SeriesKey) -> int | None:
        """Return a series' key, or None when the run has as many others as it may."""
        if run not in self._series_of_run:
            names = self._connection.execute(
                "SELECT name, modality, id FROM run_series JOIN series ON series.id = run_series.series WHERE run = ?",
                (run,),
            )
            self._series_of_run[run] = {(name, modality): key for name, modality, key in names}
            self._cached_series += len(self._series_of_run[run])
        keys = self._series_of_run[run]
        if series not in keys:
            if len(keys) >= self._max_series:
                return None
            self._connection.execute("INSERT OR IGNORE INTO series (name, modality) VALUES (?, ?)", series)
            (keys[series],) = self._connection.execute(
                "SELECT id FROM series WHERE name = ? AND modality = ?", series
            ).fetchone()
            self._cached_series += 1
            self._connection.execute("INSERT INTO run_series VALUES (?, ?)", (run, keys[series]))
        return keys[series]


def _count_repeated(points: Sequence[Point], added: Added, *, partial: bool) -> None:
    """Count points of a step that has its row."""
    # Each rank's own record comes with a `train.step` too, under the same time stamp as the cluster's.
    count = sum(point.name != rows.STEP.name for point in points)
    if partial:
        added.late += count
    else:
        added.duplicates += count
