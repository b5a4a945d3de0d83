"""Upgrade the inbox of earlier releases to the present schema: what wandb lacks stays, what it has is dropped."""

from __future__ import annotations

import sqlite3

WITHOUT_ATTEMPTS, WITHOUT_JOBS = 3, 4
FROM_VERSIONS = (WITHOUT_ATTEMPTS, WITHOUT_JOBS)
"""Versions of the schema that can be upgraded: one that keeps steps that wandb has, and has no table of attempts; one
without the table of jobs."""


def upgrade(connection: sqlite3.Connection, schema: str, version: int) -> None:
    """Change the tables, within a transaction of the caller.

    Args:
        connection: The inbox's.
        schema: The statements that make the present tables.
        version: The version of those that are there.
    """
    execute = connection.execute
    if version == WITHOUT_ATTEMPTS:
        execute("PRAGMA legacy_alter_table = ON")  # other tables go on to refer to `steps`
        execute("ALTER TABLE steps RENAME TO former_steps")
        for index in ("pending", "undelivered", "sealed"):
            execute(f"DROP INDEX IF EXISTS {index}")
    present = {name for (name,) in execute("SELECT name FROM sqlite_master")}
    for statement in schema.split(";\n"):
        words = statement.rpartition("CREATE ")[2].split()
        if words and words[1] not in present:
            execute(statement)
    if version == WITHOUT_ATTEMPTS:
        _move_steps(connection)


def _move_steps(connection: sqlite3.Connection) -> None:
    """Fill the table of attempts, and keep the steps that wandb lacks."""
    execute = connection.execute
    execute(
        "INSERT INTO attempts (run, attempt, newest_ns, floor_ns, last_ns)"
        " SELECT run, attempt, newest, newest, last FROM (SELECT run, attempt, max(last_ns) AS last,"
        " max(CASE WHEN ordinal IS NULL THEN 0 ELSE time_ns END) AS newest FROM former_steps GROUP BY run, attempt)"
    )
    columns = "id, run, attempt, time_ns, step, expected, arrived, first_ns, last_ns, ordinal, partial"
    execute(f"INSERT INTO steps ({columns}) SELECT {columns} FROM former_steps WHERE delivered = 0")  # noqa: S608
    execute("DELETE FROM rows WHERE step NOT IN (SELECT id FROM steps)")
    execute("DROP TABLE former_steps")
