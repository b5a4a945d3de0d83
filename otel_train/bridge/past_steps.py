"""Recognise steps that wandb has, in little space: by how far an attempt is, and some time stamps beyond that."""

from __future__ import annotations

import sqlite3

ABANDONED_NS = 3600 * 10**9
"""Age at which a time stamp that has only a `train.step` is taken as a rank's own record, which never becomes a row,
and a missing step is not expected any more."""
IDLE_NS = 7 * 24 * 3600 * 10**9
"""Time without points after which only a run's id, its attempts and how far they are stay."""
PAST_STEPS = 20_000
"""Time stamps of an attempt that are kept where no numbers say that no step is missing before them."""


class PastSteps:
    """Keeps the steps that wandb has, within the transactions of its inbox.

    Args:
        connection: The inbox's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._count: dict[tuple[int, int], int] = {}
        """Number of time stamps that are kept, by run and attempt."""

    def forget(self) -> None:
        """Drop the counts: a transaction failed."""
        self._count.clear()

    def remember(self, key: int, attempt: int, time_ns: int, partial: int) -> None:
        """Keep the time stamp of a step that wandb has; the oldest ones go when there are too many."""
        execute = self._connection.execute
        where = (key, attempt)
        if where not in self._count:
            counted = execute("SELECT count(*) FROM past WHERE run = ? AND attempt = ?", where)
            (self._count[where],) = counted.fetchone()
        self._count[where] += execute(
            "INSERT OR IGNORE INTO past VALUES (?, ?, ?, ?)", (*where, time_ns, partial)
        ).rowcount
        surplus = self._count[where] - PAST_STEPS
        if surplus > PAST_STEPS // 10:
            (floor_ns,) = execute(
                "SELECT time_ns FROM past WHERE run = ? AND attempt = ? ORDER BY time_ns LIMIT 1 OFFSET ?",
                (*where, surplus - 1),
            ).fetchone()
            self._raise_floor(key, attempt, floor_ns)

    def _raise_floor(self, key: int, attempt: int, floor_ns: int) -> None:
        """Take every step of an attempt up to a time stamp as one that has its row."""
        where = (floor_ns, key, attempt)
        self._connection.execute("UPDATE attempts SET floor_ns = max(floor_ns, ?) WHERE run = ? AND attempt = ?", where)
        self._connection.execute("DELETE FROM past WHERE time_ns <= ? AND run = ? AND attempt = ?", where)
        self._count.pop((key, attempt), None)

    def tidy(self, now_ns: int) -> bool:
        """Drop what is not needed any more.

        Time stamps that had a `train.step` and nothing for wandb, which a rank record leaves; steps after a gap that is
        not filled any more; all of an attempt without points for long, except how far it is.

        Returns:
            Whether series were dropped.
        """
        execute = self._connection.execute
        execute("DELETE FROM steps WHERE arrived = 0 AND ordinal IS NULL AND first_ns < ?", (now_ns - ABANDONED_NS,))
        settled = execute(
            "SELECT run, attempt, newest_ns FROM attempts WHERE floor_ns < newest_ns"
            " AND (next_number > 1 AND gap_ns < ? OR last_ns < ?)",
            (now_ns - ABANDONED_NS, now_ns - IDLE_NS),
        ).fetchall()
        for where in settled:
            self._raise_floor(*where)
        idle = execute(
            "SELECT run, attempt FROM attempts WHERE last_ns < ?"
            " AND EXISTS (SELECT 1 FROM totals WHERE run = attempts.run AND attempt = attempts.attempt)",
            (now_ns - IDLE_NS,),
        ).fetchall()
        for where in idle:
            execute("DELETE FROM totals WHERE run = ? AND attempt = ?", where)
        if idle:
            self._forget_series(now_ns - IDLE_NS)
        return bool(idle)

    def _forget_series(self, since_ns: int) -> None:
        """Drop the series of runs that are idle since then, and series that no run has."""
        self._connection.execute(
            "DELETE FROM run_series WHERE NOT EXISTS"
            " (SELECT 1 FROM attempts WHERE run = run_series.run AND last_ns >= ?) AND NOT EXISTS"
            " (SELECT 1 FROM steps WHERE run = run_series.run AND arrived > 0)",
            (since_ns,),
        )
        self._connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM run_series)")
