"""Know steps again that wandb has, in little room: by how far an attempt is, and some time stamps beyond that."""

from __future__ import annotations

import sqlite3

ABANDONED_NS = 3600 * 10**9
"""A time stamp that has only a `train.step` after an hour is a rank's own record, it never becomes a row; and a step
that is missing for an hour does not come any more."""
IDLE_NS = 7 * 24 * 3600 * 10**9
"""A run that nothing came from for so long is known by its id, its attempts and how far they are, and no more."""
PAST_STEPS = 20_000
"""Steps of an attempt that are kept to know them again, where no numbers say that none is missing before them."""


class Past:
    """What is kept of steps that wandb has, within the transactions of the inbox that it belongs to.

    Args:
        connection: The inbox's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._count: dict[tuple[int, int], int] = {}
        """How many time stamps of attempts are kept."""

    def forget(self) -> None:
        """Know no counts any more: a transaction failed."""
        self._count.clear()

    def remember(self, key: int, attempt: int, time_ns: int, partial: int) -> None:
        """Know a step again that wandb has, and give up the oldest of those that are known so."""
        execute = self._connection.execute
        where = (key, attempt)
        if where not in self._count:
            found = execute("SELECT count(*) FROM past WHERE run = ? AND attempt = ?", where)
            (self._count[where],) = found.fetchone()
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
        """Drop what nobody asks for any more.

        Time stamps that had a `train.step` and nothing for wandb, which each rank record leaves; steps beyond a gap
        that is not filled any more; all of an attempt that nothing came from for long but how far it is.

        Returns:
            Whether series were forgotten.
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
        """Forget which series runs have that are idle since then, and series that no run has."""
        self._connection.execute(
            "DELETE FROM run_series WHERE NOT EXISTS"
            " (SELECT 1 FROM attempts WHERE run = run_series.run AND last_ns >= ?) AND NOT EXISTS"
            " (SELECT 1 FROM steps WHERE run = run_series.run AND arrived > 0)",
            (since_ns,),
        )
        self._connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM run_series)")
