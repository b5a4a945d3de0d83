"""Read a bridge's inbox: what arrived, what was made of it and what is in wandb; also while a bridge runs."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from otel_train.bridge.decode import Kind
from otel_train.bridge.errors import BridgeError
from otel_train.bridge.row_order import Pending, Progress
from otel_train.bridge.wandb_rows import Arrived, Row, SeriesKey, build_row
from otel_train.paths import absolute

INBOX_FILE = "inbox.sqlite"
SCHEMA_VERSION = 4
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
-- Steps that wandb has and `attempts.floor_ns` does not cover, so that they are known when they come again; bounded.
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


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step that wandb does not have durably, as the inbox knows it."""

    attempt: int
    step: int | None
    row: Row
    """Its row or, for a step that is not sealed yet, the one it would get now."""
    ordinal: int | None
    """The row's place in its run, which is wandb's `_step`; None until the step is sealed."""
    time_ns: int


class InboxReader:
    """Reads an inbox; made by `Inbox.open_readonly`, and safe beside the bridge that writes it.

    Args:
        connection: An open connection, which the reader owns.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._names: dict[int, SeriesKey] = {}
        """Name and modality of each series that was looked up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._connection.close()

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, in the order of their first arrival."""
        with self._lock:
            return [run_id for (run_id,) in self._connection.execute("SELECT run_id FROM runs ORDER BY id")]

    def delivered_steps(self, run_id: str) -> int:
        """Return how many rows of a run wandb has; 0 for an unknown run."""
        with self._lock:
            found = self._connection.execute("SELECT delivered FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return found[0] if found else 0

    def backlog(self) -> tuple[int, int | None]:
        """Return how many steps wait for their row in wandb, and when the first of them came (None without any)."""
        with self._lock:
            found = self._connection.execute("SELECT count(*), min(first_ns) FROM steps WHERE arrived > 0").fetchone()
        return found[0], found[1]

    def rows(self, run_id: str) -> list[StepRow]:
        """Return the steps of a run that wandb lacks in the order of their rows, those without one yet at the end."""
        with self._lock:
            key = self._run_key(run_id)
            sealed = self._connection.execute(
                "SELECT attempt, steps.step, row, ordinal, time_ns FROM steps"
                " JOIN rows ON rows.step = steps.id WHERE run = ? AND ordinal IS NOT NULL ORDER BY ordinal",
                (key,),
            )
            result = [
                StepRow(attempt, step, json.loads(row), ordinal, time_ns)
                for attempt, step, row, ordinal, time_ns in sealed
            ]
            return result if key is None else result + list(self._pending_rows(key))

    def _pending_rows(self, key: int) -> Iterator[StepRow]:
        totals: dict[int, dict[SeriesKey, float]] = {}
        pending = self._pending(key)
        attempts = self._attempts(key, {step.attempt for step in pending})
        newest = {attempt: progress.newest_ns for attempt, progress in attempts.items()}
        for step in pending:
            if step.attempt not in totals:
                totals[step.attempt] = self._totals(key, step.attempt)
            row, changed = self._build(step, totals[step.attempt], late=step.time_ns < newest[step.attempt])
            totals[step.attempt].update(changed)
            yield StepRow(step.attempt, step.step, row, ordinal=None, time_ns=step.time_ns)

    def _run_key(self, run_id: str) -> int | None:
        found = self._connection.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return found[0] if found else None

    def _name(self, series: int) -> SeriesKey:
        if series not in self._names:
            found = self._connection.execute("SELECT id, name, modality FROM series")
            self._names = {key: (name, modality) for key, name, modality in found}
        return self._names[series]

    def _pending(self, key: int, limit: int = -1) -> list[Pending]:
        found = self._connection.execute(
            "SELECT id, attempt, steps.step, number, time_ns, expected, arrived, first_ns, last_ns, together.points"
            " FROM steps"
            " LEFT JOIN together ON together.step = steps.id"
            " WHERE run = ? AND ordinal IS NULL AND arrived > 0 ORDER BY attempt, time_ns LIMIT ?",
            (key, limit),
        )
        return [Pending(*columns) for columns in found]

    def _totals(self, key: int, attempt: int) -> dict[SeriesKey, float]:
        found = self._connection.execute(
            "SELECT name, modality, value FROM totals JOIN series ON series.id = totals.series"
            " WHERE run = ? AND attempt = ?",
            (key, attempt),
        )
        return {(name, modality): value for name, modality, value in found}

    def _attempts(self, key: int, numbers: Iterable[int]) -> dict[int, Progress]:
        """Return how far attempts of a run are, and the one before each."""
        columns = "attempt, next_number, newest_ns, floor_ns, gap_ns, last_ns"
        found = [
            row
            for number in numbers
            for row in self._connection.execute(
                f"SELECT {columns} FROM attempts WHERE run = ? AND attempt <= ? ORDER BY attempt DESC LIMIT 2",  # noqa: S608
                (key, number),
            )
        ]
        return {attempt: Progress(*columns) for attempt, *columns in found}

    def _build(
        self, step: Pending, totals: dict[SeriesKey, float], *, late: bool
    ) -> tuple[Row, dict[SeriesKey, float]]:
        found: Iterable[tuple[int, int, float | None]]
        if step.together is not None:
            found = json.loads(step.together)
        else:
            found = self._connection.execute("SELECT series, kind, value FROM points WHERE step = ?", (step.id,))
        arrived = [
            Arrived(*self._name(series), _KINDS[kind], math.nan if value is None else value)
            for series, kind, value in found
        ]
        return build_row(
            arrived,
            totals,
            attempt=step.attempt,
            step=step.step,
            partial=not step.complete,
            late=late,
        )


def connect_readonly(state_dir: Path) -> sqlite3.Connection:
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
        raise BridgeError(f"{path} is not a readable inbox ({error}); give the bridge's --state directory") from error
    if version != SCHEMA_VERSION:
        connection.close()
        raise BridgeError(f"{path} has schema version {version}, this otel_train reads {SCHEMA_VERSION}")
    return connection


def delivered_steps(state_dir: str | Path, run_id: str) -> int:
    """Return how many rows of a run wandb has been given, cheaply and from any process.

    Args:
        state_dir: The bridge's state directory; it need not exist yet.
        run_id: The run.

    Returns:
        The number of rows; 0 as long as there is no inbox or no such run.
    """
    if not (absolute(state_dir) / INBOX_FILE).exists():
        return 0
    try:
        with closing(InboxReader(connect_readonly(Path(state_dir)))) as reader:
            return reader.delivered_steps(run_id)
    except BridgeError:
        return 0  # a bridge is just making it
