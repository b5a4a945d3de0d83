"""Keep what arrives in SQLite, durably and once, and make each step's row when it is due."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

from otel_train.bridge.arrivals import Added, Arrivals, Begun
from otel_train.bridge.decode import Point
from otel_train.bridge.errors import BridgeError, InboxFullError
from otel_train.bridge.inbox_file import make_shrinkable, shrink, size_on_disk
from otel_train.bridge.inbox_reader import InboxReader
from otel_train.bridge.inbox_store import INBOX_FILE, SCHEMA, SCHEMA_VERSION, Store
from otel_train.bridge.jobs import Jobs
from otel_train.bridge.past_steps import PastSteps
from otel_train.bridge.row_order import Due
from otel_train.bridge.schema_upgrade import FROM_VERSIONS, upgrade
from otel_train.bridge.sealing import Sealing
from otel_train.bridge.wandb_rows import Row
from otel_train.paths import absolute

LOCK_FILE = "lock"
WAL_BYTES = 64 * 2**20
LOCK_SECONDS = 2.0
"""Seconds for which another process may hold the database: a stopping bridge does not wait longer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an inbox."""

    max_bytes: int = 4 * 2**30
    """Size of the database, which has what wandb lacks; beyond that requests are refused as retryable."""
    max_series: int = 10_000
    """Series of one run; points of further ones are refused."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row that is final and not in wandb yet."""

    ordinal: int
    time_ns: int
    row: Row


class Inbox:
    """The one writer of a state directory's inbox; its methods may be called from any thread.

    WAL lets other processes read meanwhile; synchronous=FULL because the acknowledgement lets the sender forget the
    points: NORMAL would survive a killed process, but lose acknowledged points with the machine's power. It is enough
    for dropping what wandb has.

    Args:
        state_dir: The bridge's own directory; made (0700) if it is not there.
        limits: Its bounds.

    Raises:
        BridgeError: The directory is not usable, holds another version's inbox, or another bridge has it.
    """

    def __init__(self, state_dir: str | Path, limits: Limits | None = None) -> None:
        self._state_dir = state_dir = absolute(state_dir)
        self._limits = limits or Limits()
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
            self.store = Store(connection)
            """Its database."""
            self.reader = InboxReader(self.store)
            """Reads what it holds, as any other process may."""
            self.jobs = Jobs(self.store)
            """What is known of the runs' jobs."""
            self._past_steps = PastSteps(connection)
            self._arrivals = Arrivals(self.store, self._past_steps, self._limits.max_series)
            self._live: dict[int, str] = {}
            """The runs that have steps for wandb."""
            self._unsealed: set[int] = set()
            """Those of them that may have steps without a row."""
            self._sealing = Sealing(self.store, self._past_steps)
            self._at_arrival: dict[int, Due] = {}
            """When steps are due of the runs whose rows are made as their points arrive."""
            self._unread: set[int] = set()
            """Runs with rows that were made as their points arrived, and not looked at since."""
            self._prepared = False
            self._prepare()
            make_shrinkable(connection)
            self._prepared = True
            self._reload()
        except (OSError, sqlite3.Error, BridgeError) as error:
            if connection is not None:
                connection.close()
            os.close(self._lock_fd)
            if isinstance(error, BlockingIOError):
                raise BridgeError(f"another bridge runs on {state_dir}; stop it or give another --state") from error
            raise BridgeError(f"the inbox in {state_dir} is not usable: {error}") from error

    def _prepare(self) -> None:
        self.store.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect on a new file only
        self.store.connection.execute("PRAGMA journal_mode = WAL")
        self.store.connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        with self.transaction():
            (version,) = self.store.connection.execute("PRAGMA user_version").fetchone()
            if version == SCHEMA_VERSION:
                return
            if version in FROM_VERSIONS:
                upgrade(self.store.connection, SCHEMA, version)
            elif version:
                raise BridgeError(
                    f"its schema has version {version}, this otel_train writes {SCHEMA_VERSION}; have the release that "
                    "made it bring its rows to wandb, or give another --state"
                )
            else:
                for statement in SCHEMA.split(";\n"):  # not executescript, which would commit in between
                    self.store.connection.execute(statement)
            self.store.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _reload(self) -> None:
        """Read again what the tables hold; a transaction that failed changed nothing there."""
        self._arrivals.forget()
        self.store.forget()
        self._sealing.forget()
        self._past_steps.forget()
        self.jobs.forget()
        self._live = dict(
            self.store.connection.execute(
                "SELECT id, run_id FROM runs WHERE EXISTS (SELECT 1 FROM steps WHERE run = runs.id AND arrived > 0)"
            )
        )
        self._unsealed = set(self._live)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Make the changes of a block together or not at all; within another transaction, with that one's.

        Args:
            durable: Whether they outlast the machine's power, once the block has ended. If not, there is no wait for
                the disk; they come after all changes before them and before all changes after them nevertheless.
        """
        with self.store.lock:
            inner = self.store.connection.in_transaction
            if not inner:  # each says it: what an earlier one said would stay
                self.store.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.store.connection.execute("SAVEPOINT inner" if inner else "BEGIN IMMEDIATE")
            try:
                yield
                self.store.connection.execute("RELEASE inner" if inner else "COMMIT")
            except BaseException:
                if self.store.connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    for statement in ("ROLLBACK TO inner", "RELEASE inner") if inner else ("ROLLBACK",):
                        self.store.connection.execute(statement)
                if self._prepared:
                    self._reload()
                raise

    def close(self) -> None:
        """Close the inbox and unlock its directory; a second call does nothing."""
        with self.store.lock:
            self.store.close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def add(self, points: Iterable[Point], now_ns: int, stamped_apart: Collection[tuple[str, int]] = ()) -> Added:
        """Take the points of one request in one transaction, which is durable when this returns.

        Args:
            points: In any order, of any steps.
            now_ns: The time of arrival.
            stamped_apart: Run and attempt of senders that may give the points of one step several times.

        Raises:
            InboxFullError: Nothing of the request was kept: wandb lacks so many rows that there is no room.
            sqlite3.Error: Nothing of the request was kept.
        """
        points, added = [*points], Added()
        if points:
            limit = self._limits.max_bytes
            if (used := self.used_bytes()) > limit:
                raise InboxFullError(
                    f"the inbox holds {used} bytes of rows that wandb lacks; the limit is {limit} (--max-bytes)"
                )
            with self.transaction():
                begun, grown = self._arrivals.take(points, stamped_apart, now_ns, added)
                self._live |= grown
                self._unsealed |= grown.keys()
                by_run: dict[int, list[Begun]] = {}
                for step in begun:
                    by_run.setdefault(step.run, []).append(step)
                for run, steps in by_run.items():
                    self._keep(run, steps, now_ns)
        return added

    def _keep(self, run: int, steps: list[Begun], now_ns: int) -> None:
        """Store steps of a run that begin: as rows those that are due already, where no earlier step waits."""
        with_values = sorted((step for step in steps if step.taken), key=lambda step: step.pending.order)
        sealed = 0
        if with_values:
            due = self._at_arrival.get(run)
            if due is not None and run not in self._unsealed:
                sealed = self._sealing.seal_begun(with_values, due, now_ns)
            self._live[run] = with_values[0].run_id
            if sealed:
                self._unread.add(run)
            if sealed < len(with_values):
                self._unsealed.add(run)
        self._arrivals.begin(with_values[sealed:])
        self._arrivals.begin(step for step in steps if not step.taken)

    def seal_at_arrival(self, run_id: str, due: Due) -> None:
        """From now on make a step's row in the transaction that takes its points, where it is due by then.

        Each row has one transaction less to wait for. For a run that is open in wandb only: an ordinal that wandb has
        already must not be given again. `seal` makes the rows of all other steps.
        """
        with self.store.lock:
            key = self.store.run_key(run_id)
            if key is not None:
                self._at_arrival[key] = due

    def seal_on_request(self, run_id: str | None = None) -> None:
        """Have rows be made by `seal` only, as is the case at first, of a run or of all."""
        with self.store.lock:
            if run_id is None:
                self._at_arrival.clear()
            else:
                self._at_arrival.pop(self.store.run_key(run_id) or 0, None)

    @property
    def nameless_points(self) -> int:
        """Points that were given up since the start: their step's `train.step` never came."""
        return self._sealing.nameless

    def used_bytes(self) -> int:
        """Return how many bytes of the database are in use; those that became free are used again."""
        with self.store.lock:
            pages, free, size = (
                self.store.connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def waiting_runs(self) -> dict[str, bool]:
        """Return the runs that have something for wandb, and whether `seal` or `undelivered` may have more of one."""
        with self.store.lock:
            return {run_id: key in self._unsealed or key in self._unread for key, run_id in self._live.items()}

    def has_unread(self, run_id: str) -> bool:
        """Tell whether rows of a run were made at arrival since `undelivered` was called last."""
        with self.store.lock:
            return self.store.run_key(run_id) in self._unread

    def _settle_run(self, key: int) -> None:
        """Drop a run from the live ones where it has nothing more for wandb."""
        steps = self.store.connection.execute("SELECT 1 FROM steps WHERE run = ? AND arrived > 0 LIMIT 1", (key,))
        if steps.fetchone() is None:
            self._live.pop(key, None)

    def raise_ordinal(self, run_id: str, ordinal: int) -> None:
        """Raise the ordinal of the run's next row: wandb's server may have rows that this inbox never had."""
        with self.transaction():
            self.store.connection.execute(
                "UPDATE runs SET next_ordinal = max(next_ordinal, ?) WHERE run_id = ?", (ordinal, run_id)
            )

    def any_due(self, run_id: str, due: Due, now_ns: int) -> bool:
        """Tell whether the run's first step without a row is due."""
        with self.store.lock:
            key = self.store.run_key(run_id)
            if key is None or not (first := self.store.pending(key, 1)):
                return False
            return any(due.in_order(first, self.store.attempts(key, (first[0].attempt,)), now_ns))

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
        with self.transaction():
            key = self.store.run_key(run_id)
            if key is None:
                return 0
            pending = self.store.pending(key, limit + 1)  # one more tells whether these are all
            if not pending:
                self._unsealed.discard(key)
                self._settle_run(key)
                return 0
            made = self._sealing.seal(key, pending[:limit], due, now_ns)
            if made == len(pending):
                self._unsealed.discard(key)
            return made

    def undelivered(self, run_id: str, after: int = -1, limit: int = 256) -> list[SealedRow]:
        """Return the run's first rows that wandb does not have durably, in order.

        Args:
            run_id: The run.
            after: Only rows with a larger ordinal.
            limit: How many at most.
        """
        with self.store.lock:
            key = self.store.run_key(run_id)
            if key is not None:
                self._unread.discard(key)
            rows = self.store.connection.execute(
                "SELECT ordinal, time_ns, row FROM steps JOIN rows ON rows.step = steps.id"
                " WHERE run = ? AND ordinal > ? ORDER BY ordinal LIMIT ?",
                (key, after, limit),
            )
            return [SealedRow(ordinal, time_ns, json.loads(row)) for ordinal, time_ns, row in rows]

    def mark_delivered(self, run_id: str, ordinals: Iterable[int]) -> tuple[int, int]:
        """Drop rows of the run that wandb has durably; they make room at once.

        Rows that come back when the machine loses its power are found in wandb, as after any end of a bridge.

        Returns:
            How many wandb did not have before, and how many of those are partial.
        """
        marked = partials = 0
        with self.transaction(durable=False):
            key = self.store.run_key(run_id)
            if key is None:
                return 0, 0
            floors: dict[int, int] = {}
            execute = self.store.connection.execute
            for where in ((key, *span) for span in _spans(ordinals)):
                execute(
                    "DELETE FROM rows WHERE step IN (SELECT id FROM steps WHERE run = ? AND ordinal BETWEEN ? AND ?)",
                    where,
                )
                delivered = execute(
                    "DELETE FROM steps WHERE run = ? AND ordinal BETWEEN ? AND ? RETURNING attempt, time_ns, partial",
                    where,
                ).fetchall()
                for attempt, time_ns, partial in delivered:
                    if attempt not in floors:
                        floors[attempt] = self.store.attempts(key, (attempt,))[attempt].floor_ns
                    if partial or time_ns > floors[attempt]:
                        self._past_steps.remember(key, attempt, time_ns, partial)
                    marked, partials = marked + 1, partials + partial
            execute("UPDATE runs SET delivered = delivered + ? WHERE id = ?", (marked, key))
            self._settle_run(key)
        return marked, partials

    def tidy(self, now_ns: int) -> None:
        """Drop what is not needed any more; called from time to time."""
        with self.transaction():
            if self._past_steps.tidy(now_ns):
                self._reload()

    def shrink(self) -> bool:
        """Give the disk back some of what is not used any more, and tell whether there is more; called when idle."""
        with self.store.lock:
            return shrink(self.store.connection)

    def size_on_disk(self) -> int:
        """Return the size of its files in bytes."""
        return size_on_disk(self._state_dir)


def _spans(ordinals: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of ordinals that follow each other."""
    for _, group in groupby(enumerate(ordinals), lambda indexed: indexed[1] - indexed[0]):
        span = [ordinal for _, ordinal in group]
        yield span[0], span[-1]
