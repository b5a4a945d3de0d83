"""The inbox's file shrinks when wandb has its rows, also one that a former release made."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from otel_train.bridge import Inbox
from otel_train.bridge.decode import decode
from otel_train.bridge.inbox_store import INBOX_FILE
from otel_train.bridge.row_order import Due
from otel_train.bridge.row_writer import Writer
from tests.bridge.test_row_writer import MemorySink
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until

DUE = Due(settle_ns=10**18, linger_ns=0)
STEPS = 500


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep few free pages, and give few back at once."""
    monkeypatch.setattr("otel_train.bridge.inbox_file.FREE_PAGES", 10)
    monkeypatch.setattr("otel_train.bridge.inbox_file.PAGES_AT_ONCE", 20)


def fill(inbox: Inbox) -> int:
    """Have steps of 40 values each arrive, and return the size that the database has then."""
    values = {f"scalar-{number}": 1 / 3 for number in range(40)}
    points = [decode(step_request(step, values, number=step + 1)).points for step in range(STEPS)]
    inbox.add(chain.from_iterable(points), 0)
    inbox.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return inbox.size_on_disk()


def database_size(inbox: Inbox) -> int:
    """Return the size of an inbox's database without its log."""
    return Path(inbox.store.connection.execute("PRAGMA database_list").fetchone()[2]).stat().st_size


def test_file_shrinks_beside_writer(inbox: Inbox) -> None:
    """A backlog that wandb takes leaves a small file while the bridge runs, some pages at a time."""
    full = fill(inbox)
    writer = Writer(inbox, MemorySink(), DUE, interval=0.01)
    writer.start()
    wait_until(lambda: database_size(inbox) < full / 3, 20, "a small file")
    assert writer.stop(30)
    assert inbox.reader.delivered_steps("run") == STEPS
    assert inbox.store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_former_file_becomes_shrinkable(tmp_path: Path) -> None:
    """A file of a release without small steps is written anew once, and shrinks from then on."""
    with Inbox(tmp_path) as inbox:
        full = fill(inbox)
    with closing(sqlite3.connect(tmp_path / INBOX_FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    with Inbox(tmp_path) as inbox:
        while inbox.seal("run", DUE, 0):
            inbox.mark_delivered("run", [row.ordinal for row in inbox.undelivered("run")])
        (free,) = inbox.store.connection.execute("PRAGMA freelist_count").fetchone()
        calls = 1
        while inbox.shrink():
            calls += 1
        assert calls == math.ceil((free - 10) / 20)
        assert database_size(inbox) < full / 3
