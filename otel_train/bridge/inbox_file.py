"""Give the disk back what an inbox does not use any more."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from otel_train.bridge.inbox_store import INBOX_FILE

logger = logging.getLogger(__name__)

FREE_PAGES = 256
"""Unused pages that stay in the file, 1 MiB, for what comes next."""
PAGES_AT_ONCE = 1024
"""Unused pages that are given back in one transaction; requests wait for it."""
_INCREMENTAL = 2
_LOGS = ("", "-wal")
"""Endings of the files that a database is, its log beside it."""


def size_on_disk(state_dir: Path) -> int:
    """Return the size of an inbox and its log on the disk, in bytes; 0 where there is none."""
    size = 0
    for ending in _LOGS:
        with suppress(FileNotFoundError):
            size += (state_dir / (INBOX_FILE + ending)).stat().st_size
    return size


def make_shrinkable(connection: sqlite3.Connection) -> None:
    """Write a file anew that can't be shrunk in small steps, as those of former releases can't.

    It needs as much room as what is used takes; without that the file works on as it is.

    Args:
        connection: The inbox's, without a transaction.
    """
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode == _INCREMENTAL:
        return
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.Error as error:
        logger.warning("the inbox can't be shrunk, and goes on at its size: %s", error)


def shrink(connection: sqlite3.Connection) -> bool:
    """Give back some of the unused pages, where there are many.

    Args:
        connection: The inbox's, without a transaction.

    Returns:
        Whether there are more.
    """
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free <= FREE_PAGES:
        return False
    # Not `execute`, which ends the statement after its first page.
    connection.executescript(f"PRAGMA incremental_vacuum({min(free - FREE_PAGES, PAGES_AT_ONCE)})")
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # only that shortens the file
    return bool(free - FREE_PAGES > PAGES_AT_ONCE)
