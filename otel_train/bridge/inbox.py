"""Keep what arrives in SQLite, durably and once, and make each step's row when it is due."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from otel_train.bridge.decode import Kind, Point, StepId
from otel_train.bridge.errors import BridgeError
from otel_train.bridge.rows import Row
from otel_train.bridge.store import INBOX_FILE, SCHEMA, SCHEMA_VERSION, InboxReader, Pending, connect_readonly
from otel_train.catalogue import cluster_name, rows

LOCK_FILE = "lock"
MAX_STEP_POINTS = 10_000
"""A step that has this many points takes no more: a row's size is bounded whatever is sent."""
ABANDONED_NS = 3600 * 10**9
"""A time stamp that has only a `train.step` after an hour is a rank's own record; it never becomes a row."""
_STEP_POINTS = cluster_name(rows.STEP_POINTS.name)


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row that is made for good and not in wandb yet."""

    id: int
    ordinal: int
    time_ns: int
    row: Row


@dataclass(frozen=True, slots=True)
class Due:
    """When a step's row is made; both in nanoseconds since its points arrived."""

    settle_ns: int
    """An incomplete step waits this long, counted from its first point."""
    linger_ns: int
    """A complete step waits this long, counted from its last point, so that an earlier one that is a little behind
    goes first."""

    def __call__(self, step: Pending, now_ns: int) -> bool:
        """Tell whether the step's row is due; a clock that was set back must not hold it for good, hence abs."""
        if abs(now_ns - step.first_ns) >= self.settle_ns:
            return True
        return step.complete and abs(now_ns - step.last_ns) >= self.linger_ns


class Inbox(InboxReader):
    """The one writer of a state directory's inbox; its methods may be called from any thread.

    WAL lets other processes read meanwhile; synchronous=FULL because the acknowledgement lets the sender forget the
    points: NORMAL would survive a killed process, but lose acknowledged points with the machine's power.

    Args:
        state_dir: The bridge's own directory; made (0700) if it is not there.

    Raises:
        BridgeError: The directory is not usable, holds another version's inbox, or another bridge has it.
    """

    def __init__(self, state_dir: str | Path) -> None:
        state_dir = Path(state_dir)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BridgeError(f"state directory {state_dir} is not usable: {error}") from error
        connection = None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            connection = sqlite3.connect(
                state_dir / INBOX_FILE, timeout=10, isolation_level=None, check_same_thread=False
            )
            super().__init__(connection)
            self._prepare()
        except (OSError, sqlite3.Error, BridgeError) as error:
            if connection is not None:
                connection.close()
            os.close(self._lock_fd)
            if isinstance(error, BlockingIOError):
                raise BridgeError(f"another bridge runs on {state_dir}; stop it or give another --state") from error
            raise BridgeError(f"the inbox in {state_dir} is not usable: {error}") from error

    @classmethod
    def open_readonly(cls, state_dir: str | Path) -> InboxReader:
        """Return a reader of the inbox in `state_dir`, also while a bridge runs on it.

        Raises:
            BridgeError: There is none.
        """
        return InboxReader(connect_readonly(Path(state_dir)))

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == SCHEMA_VERSION:
                return
            if version:
                raise BridgeError(f"its schema has version {version}, this otel_train writes {SCHEMA_VERSION}")
            for statement in SCHEMA.split(";\n"):  # not executescript, which would commit in between
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the inbox and let another bridge have it; a second call does nothing."""
        with self._lock:
            super().close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def add(self, points: Iterable[Point], now_ns: int) -> int:
        """Take the points of one request in one transaction, which is durable when this returns.

        A point that is there already, and one of a step whose row is made, changes nothing.

        Args:
            points: In any order, of any steps.
            now_ns: The time of arrival.

        Returns:
            How many were new.

        Raises:
            sqlite3.Error: Nothing of the request was kept.
        """
        by_step: dict[StepId, list[Point]] = {}
        for point in points:
            by_step.setdefault(point.step_id, []).append(point)
        if not by_step:
            return 0
        with self._transaction():
            return sum(self._add_step(step_id, group, now_ns) for step_id, group in by_step.items())

    def _add_step(self, step_id: StepId, points: list[Point], now_ns: int) -> int:
        execute = self._connection.execute
        execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (step_id.run_id,))
        unique = (self._run_key(step_id.run_id), step_id.attempt, step_id.time_ns)
        execute(
            "INSERT OR IGNORE INTO steps (run, attempt, time_ns, first_ns, last_ns) VALUES (?, ?, ?, ?, ?)",
            (*unique, now_ns, now_ns),
        )
        key, step, arrived, ordinal = execute(
            "SELECT id, step, arrived, ordinal FROM steps WHERE run = ? AND attempt = ? AND time_ns = ?", unique
        ).fetchone()
        if ordinal is not None or arrived >= MAX_STEP_POINTS:
            return 0
        new = 0
        for point in points:
            if point.name == rows.STEP.name:
                new += step is None
                step = int(point.value) if step is None else step
                continue
            execute("INSERT OR IGNORE INTO series (name, modality) VALUES (?, ?)", (point.name, point.modality))
            inserted = execute(
                "INSERT OR IGNORE INTO points SELECT ?, id, ?, ? FROM series WHERE name = ? AND modality = ?",
                (key, point.kind, point.value, point.name, point.modality),
            ).rowcount
            if inserted and point.name == _STEP_POINTS and point.kind is Kind.VALUE and point.value >= 1:
                expected = min(int(min(point.value, 2**62)), 2**62)
                execute("UPDATE steps SET expected = ? WHERE id = ?", (expected, key))
            arrived += inserted
            new += inserted
        if new:
            execute("UPDATE steps SET step = ?, arrived = ?, last_ns = ? WHERE id = ?", (step, arrived, now_ns, key))
        return new

    def waiting_runs(self) -> list[str]:
        """Return the runs that have points without a row, or rows that wandb does not have."""
        with self._lock:
            found = self._connection.execute(
                "SELECT run_id FROM runs WHERE"
                " EXISTS (SELECT 1 FROM steps WHERE run = runs.id AND ordinal IS NULL AND arrived > 0) OR"
                " EXISTS (SELECT 1 FROM steps WHERE run = runs.id AND ordinal IS NOT NULL AND delivered = 0)"
                " ORDER BY id"
            )
            return [run_id for (run_id,) in found]

    def raise_ordinal(self, run_id: str, ordinal: int) -> None:
        """Let the run's next row have at least this ordinal: wandb's server may know rows that this inbox does not."""
        with self._transaction():
            self._connection.execute(
                "UPDATE runs SET next_ordinal = max(next_ordinal, ?) WHERE run_id = ?", (ordinal, run_id)
            )

    def any_due(self, run_id: str, due: Due, now_ns: int) -> bool:
        """Tell whether the run's first step without a row is due."""
        with self._lock:
            key = self._run_key(run_id)
            return key is not None and any(due(step, now_ns) for step in self._pending(key, 1))

    def seal(self, run_id: str, due: Due, now_ns: int, limit: int = 256) -> int:
        """Make the rows of the run's first steps, in order, up to the first that is not due.

        From then on a row and its ordinal never change, whatever arrives and however often the bridge is killed.

        Args:
            run_id: The run.
            due: Which steps are due.
            now_ns: The present time.
            limit: How many at most.

        Returns:
            How many rows were made.
        """
        with self._transaction():
            key = self._run_key(run_id)
            if key is None:
                return 0
            steps = list(itertools.takewhile(lambda step: due(step, now_ns), self._pending(key, limit)))
            for step in steps:
                row, changed = self._build(key, step, self._totals(key, step.attempt))
                self._connection.execute(
                    "UPDATE steps SET row = ?, ordinal = (SELECT next_ordinal FROM runs WHERE id = ?) WHERE id = ?",
                    (json.dumps(row), key, step.id),
                )
                self._connection.execute("UPDATE runs SET next_ordinal = next_ordinal + 1 WHERE id = ?", (key,))
                self._connection.executemany(
                    "INSERT OR REPLACE INTO totals SELECT ?, ?, id, ? FROM series WHERE name = ? AND modality = ?",
                    [(key, step.attempt, value, *series) for series, value in changed.items()],
                )
                self._connection.execute("DELETE FROM points WHERE step = ?", (step.id,))
            return len(steps)

    def undelivered(self, run_id: str, limit: int = 256) -> list[SealedRow]:
        """Return the run's first rows that wandb does not have, in order."""
        with self._lock:
            found = self._connection.execute(
                "SELECT id, ordinal, time_ns, row FROM steps"
                " WHERE run = ? AND ordinal IS NOT NULL AND delivered = 0 ORDER BY ordinal LIMIT ?",
                (self._run_key(run_id), limit),
            )
            return [SealedRow(key, ordinal, time_ns, json.loads(row)) for key, ordinal, time_ns, row in found]

    def mark_delivered(self, run_id: str, sealed: Iterable[SealedRow]) -> None:
        """Note that wandb has these rows of the run."""
        with self._transaction():
            marked = self._connection.executemany(
                "UPDATE steps SET delivered = 1 WHERE id = ? AND delivered = 0", [(row.id,) for row in sealed]
            ).rowcount
            self._connection.execute("UPDATE runs SET delivered = delivered + ? WHERE run_id = ?", (marked, run_id))

    def forget_abandoned(self, now_ns: int) -> None:
        """Drop time stamps that had a `train.step` and nothing for wandb: each rank record leaves one."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM steps WHERE arrived = 0 AND ordinal IS NULL AND first_ns < ?", (now_ns - ABANDONED_NS,)
            )
