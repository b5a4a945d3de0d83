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

from otel_train.bridge.arrivals import Added, Arrivals
from otel_train.bridge.decode import Point, StepId
from otel_train.bridge.errors import BridgeError, InboxFullError
from otel_train.bridge.rows import PARTIAL_KEY, Row, SeriesKey
from otel_train.bridge.store import INBOX_FILE, SCHEMA, SCHEMA_VERSION, InboxReader, Pending, connect_readonly
from otel_train.paths import absolute

LOCK_FILE = "lock"
ABANDONED_NS = 3600 * 10**9
"""A time stamp that has only a `train.step` after an hour is a rank's own record; it never becomes a row."""
IDENTITY_NS = 7 * 24 * 3600 * 10**9
"""How long it is known, when room is needed, that a step was there: a duplicate that is later would be a second row."""
WAL_BYTES = 64 * 2**20
LOCK_SECONDS = 2.0
"""For which another process may hold the database: a stopping bridge waits for no more."""
_DROP_ROWS = 2000
_TIGHT = 0.9
"""Of the bytes allowed: from there on, rows that wandb has are dropped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an inbox takes."""

    max_bytes: int = 4 * 2**30
    """Of the database. Rows that wandb has make room first; then requests are refused as retryable."""
    max_series: int = 10_000
    """Of one run; points of further ones are refused."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row that is made for good and not in wandb yet."""

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
        limits: How much it takes.

    Raises:
        BridgeError: The directory is not usable, holds another version's inbox, or another bridge has it.
    """

    def __init__(self, state_dir: str | Path, limits: Limits | None = None) -> None:
        state_dir = absolute(state_dir)
        self._limits = limits or Limits()
        self._droppable = True
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BridgeError(f"state directory {state_dir} is not usable: {error}") from error
        connection = None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            connection = sqlite3.connect(
                state_dir / INBOX_FILE, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            super().__init__(connection)
            self._arrivals = Arrivals(connection, self._limits.max_series)
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
        self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
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
                self._arrivals.forget()
                self._names.clear()
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

    def add(self, points: Iterable[Point], now_ns: int) -> Added:
        """Take the points of one request in one transaction, which is durable when this returns.

        Args:
            points: In any order, of any steps.
            now_ns: The time of arrival.

        Raises:
            InboxFullError: Nothing of the request was kept: wandb lacks so many rows that there is no room.
            sqlite3.Error: Nothing of the request was kept.
        """
        by_step: dict[StepId, list[Point]] = {}
        for point in points:
            by_step.setdefault(point.step_id, []).append(point)
        added = Added()
        if by_step:
            self._ensure_room(now_ns)
            with self._transaction():
                for step_id, group in by_step.items():
                    self._arrivals.take(step_id, group, now_ns, added)
        return added

    def _ensure_room(self, now_ns: int) -> None:
        limit = self._limits.max_bytes
        while (used := self.used_bytes()) > _TIGHT * limit:
            dropped = self._drop_delivered(now_ns)
            if used > limit and not dropped:
                raise InboxFullError(
                    f"the inbox holds {used} bytes of rows that wandb lacks; the limit is {limit} (--max-bytes)"
                )
            if used <= limit:
                return

    def used_bytes(self) -> int:
        """Return how much of the database is in use; what became free in it is used again."""
        with self._lock:
            pages, free, size = (
                self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def _drop_delivered(self, now_ns: int) -> int:
        """Drop the oldest rows that wandb has, and then that they were there; return how many."""
        if not self._droppable:
            return 0  # it was looked for in vain, which takes long, and wandb has taken nothing since
        with self._transaction():
            dropped = self._connection.execute(
                "DELETE FROM rows WHERE step IN (SELECT rows.step FROM rows JOIN steps ON steps.id = rows.step"
                " WHERE delivered = 1 ORDER BY rows.step LIMIT ?)",
                (_DROP_ROWS,),
            ).rowcount
            if not dropped:
                dropped = self._connection.execute(
                    "DELETE FROM steps WHERE id IN"
                    " (SELECT id FROM steps WHERE delivered = 1 AND first_ns < ? ORDER BY id LIMIT ?)",
                    (now_ns - IDENTITY_NS, _DROP_ROWS),
                ).rowcount
        self._droppable = dropped > 0
        return dropped

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
            execute = self._connection.execute
            (ordinal,) = execute("SELECT next_ordinal FROM runs WHERE id = ?", (key,)).fetchone()
            totals: dict[int, dict[SeriesKey, float]] = {}
            newest: dict[int, int] = {}
            for place, step in enumerate(steps):
                if step.attempt not in totals:
                    totals[step.attempt] = self._totals(key, step.attempt)
                    newest[step.attempt] = self._newest_sealed(key, step.attempt)
                late = step.time_ns < newest[step.attempt]
                row, changed = self._build(step, totals[step.attempt], late=late)
                totals[step.attempt].update(changed)
                newest[step.attempt] = max(newest[step.attempt], step.time_ns)
                execute(
                    "UPDATE steps SET partial = ?, ordinal = ? WHERE id = ?",
                    (PARTIAL_KEY in row, ordinal + place, step.id),
                )
                execute("INSERT INTO rows VALUES (?, ?)", (step.id, json.dumps(row)))
                if step.together is None:
                    execute("DELETE FROM points WHERE step = ?", (step.id,))
                else:
                    execute("DELETE FROM together WHERE step = ?", (step.id,))
            execute("UPDATE runs SET next_ordinal = ? WHERE id = ?", (ordinal + len(steps), key))
            self._connection.executemany(
                "INSERT OR REPLACE INTO totals SELECT ?, ?, id, ? FROM series WHERE name = ? AND modality = ?",
                [(key, attempt, value, *series) for attempt in totals for series, value in totals[attempt].items()],
            )
            return len(steps)

    def undelivered(self, run_id: str, after: int = -1, limit: int = 256) -> list[SealedRow]:
        """Return the run's first rows that wandb does not have durably, in order.

        Args:
            run_id: The run.
            after: Only rows with a larger ordinal.
            limit: How many at most.
        """
        with self._lock:
            found = self._connection.execute(
                "SELECT ordinal, time_ns, row FROM steps JOIN rows ON rows.step = steps.id"
                " WHERE run = ? AND ordinal > ? AND delivered = 0 ORDER BY ordinal LIMIT ?",
                (self._run_key(run_id), after, limit),
            )
            return [SealedRow(ordinal, time_ns, json.loads(row)) for ordinal, time_ns, row in found]

    def mark_delivered(self, run_id: str, ordinals: Iterable[int]) -> tuple[int, int]:
        """Note that wandb has these rows of the run, durably.

        Returns:
            How many it did not have before, and how many of those are partial.
        """
        marked = partial = 0
        with self._transaction():
            key = self._run_key(run_id)
            for ordinal in ordinals:
                found = self._connection.execute(
                    "UPDATE steps SET delivered = 1 WHERE run = ? AND ordinal = ? AND delivered = 0 RETURNING partial",
                    (key, ordinal),
                ).fetchone()
                if found is not None:
                    marked, partial = marked + 1, partial + found[0]
            self._connection.execute("UPDATE runs SET delivered = delivered + ? WHERE id = ?", (marked, key))
        self._droppable = True
        return marked, partial

    def forget_abandoned(self, now_ns: int) -> None:
        """Drop time stamps that had a `train.step` and nothing for wandb: each rank record leaves one."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM steps WHERE arrived = 0 AND ordinal IS NULL AND first_ns < ?", (now_ns - ABANDONED_NS,)
            )
