"""Look up the keys of runs and series in the inbox's tables, and give new ones."""

from __future__ import annotations

import sqlite3

from otel_train.bridge.wandb_rows import SeriesKey

CACHED_RUNS, CACHED_SERIES = 4096, 200_000
"""Runs and series of runs whose keys are kept in memory; all are looked up again beyond that."""


class SeriesKeys:
    """Knows the keys of runs and of their series, within the transactions of its inbox.

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
        """Drop the keys that were looked up."""
        self._runs.clear()
        self._series_of_run.clear()
        self._cached_series = 0

    def run(self, run_id: str) -> int:
        """Return the key of a run, which gets one where it has none."""
        if run_id not in self._runs:
            if len(self._runs) >= CACHED_RUNS or self._cached_series > CACHED_SERIES:
                self.forget()
            self._connection.execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))
            (self._runs[run_id],) = self._connection.execute(
                "SELECT id FROM runs WHERE run_id = ?", (run_id,)
            ).fetchone()
        return self._runs[run_id]

    def series(self, run: int) -> dict[SeriesKey, int]:
        """Return the keys of a run's series, none of which is 0; `add` adds to what is returned."""
        if run not in self._series_of_run:
            names = self._connection.execute(
                "SELECT name, modality, id FROM run_series JOIN series ON series.id = run_series.series WHERE run = ?",
                (run,),
            )
            self._series_of_run[run] = {(name, modality): key for name, modality, key in names}
            self._cached_series += len(self._series_of_run[run])
        return self._series_of_run[run]

    def add(self, run: int, series: SeriesKey) -> int | None:
        """Return the key of a series that a run has not yet, or None when the run has as many others as it may."""
        keys = self.series(run)
        if len(keys) >= self._max_series:
            return None
        self._connection.execute("INSERT OR IGNORE INTO series (name, modality) VALUES (?, ?)", series)
        (keys[series],) = self._connection.execute(
            "SELECT id FROM series WHERE name = ? AND modality = ?", series
        ).fetchone()
        self._cached_series += 1
        self._connection.execute("INSERT INTO run_series VALUES (?, ?)", (run, keys[series]))
        return keys[series]
