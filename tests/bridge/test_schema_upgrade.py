"""An inbox of the release before is upgraded to the present schema, and an unknown one is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from otel_train.bridge import BridgeError, Inbox
from otel_train.bridge.arrivals import Added
from otel_train.bridge.decode import decode
from otel_train.bridge.inbox_store import INBOX_FILE
from otel_train.bridge.job_points import Setting
from otel_train.bridge.row_order import Due
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import cluster_name, rows
from tests.support.step_requests import BASE_NS, SECOND, numbered_points, step_request


def test_upgrade_keeps_undelivered_rows(tmp_path: Path) -> None:
    """A row stays, points become one with the totals before, and a step that wandb has does not come twice."""
    former = f"""
CREATE TABLE runs (id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, next_ordinal INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE steps (id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL,
    time_ns INTEGER NOT NULL, step INTEGER, expected INTEGER, arrived INTEGER NOT NULL DEFAULT 0,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, ordinal INTEGER, partial INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0, UNIQUE (run, attempt, time_ns));
CREATE INDEX pending ON steps (run, attempt, time_ns) WHERE ordinal IS NULL AND arrived > 0;
CREATE INDEX undelivered ON steps (run, ordinal) WHERE ordinal IS NOT NULL AND delivered = 0;
CREATE INDEX sealed ON steps (run, ordinal) WHERE ordinal IS NOT NULL;
CREATE TABLE rows (step INTEGER PRIMARY KEY REFERENCES steps, row TEXT NOT NULL);
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, modality TEXT NOT NULL, UNIQUE (name, modality));
CREATE TABLE run_series (run INTEGER NOT NULL REFERENCES runs, series INTEGER NOT NULL REFERENCES series,
    PRIMARY KEY (run, series)) WITHOUT ROWID;
CREATE TABLE points (step INTEGER NOT NULL REFERENCES steps, series INTEGER NOT NULL REFERENCES series,
    kind INTEGER NOT NULL, value, PRIMARY KEY (step, series)) WITHOUT ROWID;
CREATE TABLE together (step INTEGER PRIMARY KEY REFERENCES steps, points TEXT NOT NULL);
CREATE TABLE totals (run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series, value, PRIMARY KEY (run, attempt, series)) WITHOUT ROWID;
INSERT INTO runs VALUES (1, 'run', 2, 1);
INSERT INTO steps VALUES (1, 1, 1, {BASE_NS + 1 * SECOND}, 1, 1, 1, 0, 0, 0, 0, 1);
INSERT INTO steps VALUES (2, 1, 1, {BASE_NS + 2 * SECOND}, 2, 1, 1, 0, 0, 1, 0, 0);
INSERT INTO steps VALUES (3, 1, 1, {BASE_NS + 3 * SECOND}, 3, 1, 1, 0, 0, NULL, 0, 0);
INSERT INTO rows VALUES (1, '{{"{STEP_KEY}": 1}}');
INSERT INTO rows VALUES (2, '{{"{STEP_KEY}": 2, "{rows.PICKS.wandb_key}": 4}}');
INSERT INTO series VALUES (1, '{cluster_name(rows.PICKS.name)}', '');
INSERT INTO run_series VALUES (1, 1);
INSERT INTO together VALUES (3, '[[1, 1, 12]]');
INSERT INTO totals VALUES (1, 1, 1, 8);
PRAGMA user_version = 3;
"""
    with closing(sqlite3.connect(tmp_path / INBOX_FILE)) as connection:
        connection.executescript(former)
    with Inbox(tmp_path) as inbox:
        assert inbox.add(decode(step_request(1, {"loss": 0.5})).points, 0) == Added(duplicates=2)
        assert inbox.seal("run", Due(settle_ns=1000, linger_ns=0), 1) == 1
        assert [
            (row.ordinal, row.row[STEP_KEY], row.row[rows.PICKS.wandb_key]) for row in inbox.undelivered("run")
        ] == [
            (1, 2, 4),
            (2, 3, 4),
        ]
        inbox.mark_delivered("run", [1, 2])
    with Inbox(tmp_path) as inbox:
        assert (inbox.reader.delivered_steps("run"), inbox.waiting_runs()) == (3, {})


def test_unknown_schema_is_refused(tmp_path: Path) -> None:
    """The error says what to do, and the directory is unlocked again."""
    with closing(sqlite3.connect(tmp_path / INBOX_FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(BridgeError, match=r"version 99.*another --state"):
            Inbox(tmp_path)


def test_upgrade_adds_jobs(tmp_path: Path) -> None:
    """An inbox without the table of jobs gets one, and keeps everything else."""
    with Inbox(tmp_path) as inbox:
        inbox.add(numbered_points(1), 0)
    with closing(sqlite3.connect(tmp_path / INBOX_FILE)) as connection:
        connection.executescript("DROP TABLE jobs; PRAGMA user_version = 4")
    with Inbox(tmp_path) as inbox:
        inbox.jobs.take([Setting("run", 1, "lr", 0.1)], [])
        assert (inbox.waiting_runs(), inbox.jobs["run"].settings) == ({"run": True}, {"lr": 0.1})
