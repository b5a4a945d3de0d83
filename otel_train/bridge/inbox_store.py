"""An inbox's database: its schema, and the look-ups that whoever writes it and whoever only reads it share."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from otel_train.bridge.decode import Kind
from otel_train.bridge.errors import BridgeError
from otel_train.bridge.row_order import Pending, Progress
from otel_train.bridge.wandb_rows import Arrived, Row, SeriesKey, build_row
from otel_train.paths import absolute

INBOX_FILE = "inbox.sqlite"
SCHEMA_VERSION = 5
_KINDS = {int(kind): kind for kind in Kind}

SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE,
    next_ordinal INTEGER NOT NULL DEFAULT 0,  -- of the next row; it becomes wandb's _step
    delivered INTEGER NOT NULL DEFAULT 0      -- rows that wandb has durably
);
-- The names are those of `Progress`.
CREATE TABLE attempts (
    run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL,
    next_number INTEGER NOT NULL DEFAULT 1, newest_ns INTEGER NOT NULL DEFAULT 0, floor_ns INTEGER NOT NULL DEFAULT 0,
    gap_ns INTEGER NOT NULL DEFAULT 0, last_ns INTEGER NOT NULL,
    PRIMARY KEY (run, attempt)
) WITHOUT ROWID;
-- What is known of a run's job: of its newest attempt that tells anything.
CREATE TABLE jobs (
    run INTEGER PRIMARY KEY REFERENCES runs, attempt INTEGER NOT NULL, settings TEXT NOT NULL,  -- JSON by name
    exit_code INTEGER, ended_ns INTEGER NOT NULL DEFAULT 0,  -- NULL and 0 while it goes on
    revision INTEGER NOT NULL DEFAULT 1, told INTEGER NOT NULL DEFAULT 0  -- that wandb has durably
);
-- Steps that wandb does not have durably. A step without a point for wandb (arrived = 0) is a rank's own.
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL, time_ns INTEGER NOT NULL,
    step INTEGER, number INTEGER, expected INTEGER, arrived INTEGER NOT NULL DEFAULT 0,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    ordinal INTEGER,                          -- set when the step is sealed: from then on its row never changes
    partial INTEGER NOT NULL DEFAULT 0,
    UNIQUE (run, attempt, time_ns)
);
CREATE INDEX pending ON steps (run, attempt, time_ns) WHERE ordinal IS NULL AND arrived > 0;
CREATE INDEX sealed ON steps (run, ordinal) WHERE ordinal IS NOT NULL;
CREATE TABLE rows (step INTEGER PRIMARY KEY REFERENCES steps, row TEXT NOT NULL);
-- Steps that wandb has and `attempts.floor_ns` does not cover, to recognise them when they come again; bounded.
CREATE TABLE past (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, time_ns INTEGER NOT NULL, partial INTEGER NOT NULL,
    PRIMARY KEY (run, attempt, time_ns)
) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, modality TEXT NOT NULL, UNIQUE (name, modality));
CREATE TABLE run_series (
    run INTEGER NOT NULL REFERENCES runs, series INTEGER NOT NULL REFERENCES series, PRIMARY KEY (run, series)
) WITHOUT ROWID;
-- `value` has no type, so that an int stays one; NULL is NaN, which SQLite does not keep.
CREATE TABLE points (
    step INTEGER NOT NULL REFERENCES steps, series INTEGER NOT NULL REFERENCES series, kind INTEGER NOT NULL, value,
    PRIMARY KEY (step, series)
) WITHOUT ROWID;
-- The points of a step that came together, until more come or its row is made: JSON, [[series, kind, value], ...].
CREATE TABLE together (step INTEGER PRIMARY KEY REFERENCES steps, points TEXT NOT NULL);
CREATE TABLE totals (
    run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL, series INTEGER NOT NULL REFERENCES series, value,
    PRIMARY KEY (run, attempt, series)
) WITHOUT ROWID;
"""


class Built(NamedTuple):
    """A step's row, and what it changes."""

    step: Pending
    row: Row
    totals: dict[SeriesKey, float]
    """Those totals of the attempt that are others after this row."""


class Store:
    """A connection to the database, and the look-ups on it.

    None of them takes the lock: whoever needs several of them consistent holds it around all.

    Args:
        connection: An open connection, which the store owns.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.RLock()
        self._names: dict[int, SeriesKey] = {}
        """Name and modality of each series that was looked up."""

    @classmethod
    def open_readonly(cls, state_dir: Path) -> Store:
        """Open the inbox in `state_dir` for reading only.

        Raises:
            BridgeError: There is no inbox, or the file is none.
        """
        path = absolute(state_dir) / INBOX_FILE
        try:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise BridgeError(
                f"{path} is not a readable inbox ({error}); give the bridge's --state directory"
            ) from error
        if version != SCHEMA_VERSION:
            connection.close()
            raise BridgeError(f"{path} has schema version {version}, this otel_train reads {SCHEMA_VERSION}")
        return cls(connection)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self.lock:
            self.connection.close()

    def forget(self) -> None:
        """Drop the names that were looked up: those of a transaction that failed were never given."""
        self._names.clear()

    def run_key(self, run_id: str) -> int | None:
        """Return the key of a run, None for an unknown one."""
        row = self.connection.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return row[0] if row else None

    def pending(self, key: int, limit: int = -1) -> list[Pending]:
        """Return the first steps of a run that have no row, in the order of attempt and time stamp."""
        steps = self.connection.execute(
            "SELECT id, attempt, steps.step, number, time_ns, expected, arrived, first_ns, last_ns, together.points"
            " FROM steps LEFT JOIN together ON together.step = steps.id"
            " WHERE ordinal IS NULL AND run = ? AND arrived > 0 ORDER BY attempt, time_ns LIMIT ?",
            (key, limit),
        )
        return [Pending(*columns) for columns in steps]

    def between(self, key: int, attempt: int, first_ns: int, last_ns: int, limit: int) -> tuple[list[Pending], int]:
        """Look at the first steps, `limit` at most, of an attempt from a time to another one.

        Returns:
            Those without a row, whose points are not read, and how many were looked at.
        """
        steps = self.connection.execute(
            "SELECT ordinal, id, attempt, step, number, time_ns, expected, arrived, first_ns, last_ns, NULL FROM steps"
            " WHERE run = ? AND attempt = ? AND time_ns BETWEEN ? AND ? ORDER BY time_ns LIMIT ?",
            (key, attempt, first_ns, last_ns, limit),
        ).fetchall()
        return [Pending(*columns) for ordinal, *columns in steps if ordinal is None], len(steps)

    def drop(self, step: Pending) -> None:
        """Drop a step without a row, and its points."""
        for table, column in (("points", "step"), ("together", "step"), ("steps", "id")):
            self.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (step.id,))  # noqa: S608

    def totals(self, key: int, attempt: int) -> dict[SeriesKey, float]:
        """Return the cumulative values of an attempt as of its last row."""
        totals = self.connection.execute(
            "SELECT name, modality, value FROM totals JOIN series ON series.id = totals.series"
            " WHERE run = ? AND attempt = ?",
            (key, attempt),
        )
        return {(name, modality): value for name, modality, value in totals}

    def attempts(self, key: int, numbers: Iterable[int]) -> dict[int, Progress]:
        """Return how far attempts of a run are, and the one before each."""
        columns = "attempt, next_number, newest_ns, floor_ns, gap_ns, last_ns"
        rows = [
            row
            for number in numbers
            for row in self.connection.execute(
                f"SELECT {columns} FROM attempts WHERE run = ? AND attempt <= ? ORDER BY attempt DESC LIMIT 2",  # noqa: S608
                (key, number),
            )
        ]
        return {attempt: Progress(*progress) for attempt, *progress in rows}

    def arrived(self, step: Pending) -> list[Arrived]:
        """Return the points of a step without a row."""
        execute, together = self.connection.execute, step.together
        if together is None:  # they may be one entry that was not read
            (together,) = execute("SELECT (SELECT points FROM together WHERE step = ?)", (step.id,)).fetchone()
        points: Iterable[tuple[int, int, float | None]]
        if together is not None:
            points = json.loads(together)
        else:
            points = execute("SELECT series, kind, value FROM points WHERE step = ?", (step.id,))
        return [
            (*self._name(series), _KINDS[kind], math.nan if value is None else value) for series, kind, value in points
        ]

    def _name(self, series: int) -> SeriesKey:
        if series not in self._names:
            names = self.connection.execute("SELECT id, name, modality FROM series")
            self._names = {key: (name, modality) for key, name, modality in names}
        return self._names[series]


def build_rows(
    steps: Iterable[tuple[Pending, Iterable[Arrived]]],
    newest_ns: Mapping[int, int],
    totals: Mapping[int, dict[SeriesKey, float]],
) -> Iterator[Built]:
    """Yield the rows of a run's steps.

    Args:
        steps: Each with its points, in the order of attempt and time stamp.
        newest_ns: The newest time stamp of an attempt that has its row already, by attempt.
        totals: The cumulative values of each attempt as of its last row; they become those as of the row yielded.
    """
    for step, arrived in steps:
        before = totals[step.attempt]
        row, changed = build_row(
            arrived,
            before,
            attempt=step.attempt,
            step=step.step,
            partial=not step.complete,
            late=step.time_ns < newest_ns[step.attempt],
        )
        before.update(changed)
        yield Built(step, row, changed)
