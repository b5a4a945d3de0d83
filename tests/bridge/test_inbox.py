"""Points are stored once, and rows are made once and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import BridgeError, Inbox, InboxReader, delivered_steps
from otel_train.bridge.arrivals import Added
from otel_train.bridge.decode import decode
from otel_train.bridge.errors import InboxFullError
from otel_train.bridge.inbox import Limits
from otel_train.bridge.past_steps import ABANDONED_NS
from otel_train.bridge.row_order import Due
from otel_train.catalogue import PARTIAL_KEY, rows
from tests.support.step_requests import runs_request, split_request, step_request

DUE = Due(settle_ns=1000, linger_ns=10)
PICKS = rows.PICKS.wandb_key


def add(inbox: Inbox, now_ns: int, *requests: Any) -> list[int]:
    """Take requests that arrive at that time; return how many points of each were new."""
    return [inbox.add(decode(request).points, now_ns).new for request in requests]


def test_duplicate_changes_nothing(inbox: Inbox) -> None:
    """However often and whenever a request comes again, there is one row."""
    request = step_request(1, {"loss": 0.5}, {rows.PICKS.name: 8})
    assert add(inbox, 0, request, request) == [4, 0]
    assert inbox.seal("run", DUE, 10) == 1
    assert add(inbox, 20, request) == [0]
    assert inbox.seal("run", DUE, 5000) == 0
    assert [(row.step, row.row[PICKS]) for row in inbox.reader.rows("run")] == [(1, 8)]


def test_first_of_repeated_series_counts(inbox: Inbox) -> None:
    """Of a series that comes twice in a request, as in a batch of two tries, the first point counts."""
    request = step_request(1, {"loss": 0.5})
    request.MergeFrom(step_request(1, {"loss": 0.7}))
    assert inbox.add(decode(request).points, 0) == Added(new=3, duplicates=2)
    assert inbox.reader.rows("run")[0].row["loss"] == 0.5


def test_duplicate_and_late_points_differ(inbox: Inbox) -> None:
    """A duplicate is dropped; a point that comes after its step's partial row was made is lost."""
    whole, lacking = step_request(1, {"loss": 0.5}), step_request(2, {"loss": 0.5})
    add(inbox, 0, whole, *split_request(lacking)[:2])
    assert inbox.add(decode(whole).points, 0) == Added(duplicates=2)  # not its train.step, which rank records share
    inbox.seal("run", DUE, 2000)
    assert inbox.add(decode(whole).points, 2000) == Added(duplicates=2)
    assert inbox.add(decode(split_request(lacking)[2]).points, 2000) == Added(late=1)


def test_series_of_run_are_bounded(tmp_path: Path) -> None:
    """Points of series beyond the bound are refused, those of other series and runs are taken; the row is partial."""
    with Inbox(tmp_path, Limits(max_series=2)) as inbox:
        request = step_request(1, {"a": 1.0, "b": 2.0})
        assert inbox.add(decode(request).points, 0) == Added(new=3, refused=1)
        assert inbox.add(decode(step_request(2, {"c": 1.0})).points, 0).refused == 2
        assert inbox.add(decode(step_request(1, {"c": 1.0}, run_id="other")).points, 0).refused == 0
        assert inbox.seal("run", DUE, 2000) == 1
        assert inbox.reader.rows("run")[0].row[PARTIAL_KEY] == 1
        assert inbox.store.connection.execute("SELECT count(*) FROM series WHERE name = 'cluster/b'").fetchone()


def test_full_inbox_refuses_requests(tmp_path: Path) -> None:
    """A full inbox refuses requests until wandb has rows, and still recognises their steps."""
    values = {f"metric{number}": float(number) for number in range(200)}
    with Inbox(tmp_path, Limits(max_bytes=2**19)) as inbox:
        for step in range(200):  # of about 5 KB in its row, twice the bound
            add(inbox, 0, step_request(step, values))
            inbox.seal("run", DUE, 100)
            inbox.mark_delivered("run", [step])
        assert inbox.used_bytes() < 2**18
        assert add(inbox, 0, step_request(0, values)) == [0]
        with pytest.raises(InboxFullError, match="--max-bytes"):
            add(inbox, 0, *(step_request(step, values) for step in range(200, 400)))
        inbox.seal("run", DUE, 100)
        inbox.mark_delivered("run", range(200, 250))
        assert add(inbox, 0, step_request(400, values)) != [0]


def test_last_part_completes_step(inbox: Inbox) -> None:
    """A split request makes one whole row, in whatever order the parts come."""
    *parts, last = reversed(split_request(step_request(1, {"loss": 0.5}, histogram=rows.REUSE_DISTANCE.name)))
    add(inbox, 0, *parts)
    assert inbox.seal("run", DUE, 500) == 0
    add(inbox, 0, last)
    assert inbox.seal("run", DUE, 500) == 1
    assert PARTIAL_KEY not in inbox.reader.rows("run")[0].row


def test_rows_follow_attempt_and_step(inbox: Inbox) -> None:
    """Complete steps wait for an incomplete earlier one; a resumed attempt's smaller steps come after."""
    first, *rest = split_request(step_request(1, {"loss": 0.5}))
    add(inbox, 0, step_request(1, attempt=2), step_request(3), step_request(2), first, rest[0])
    assert inbox.seal("run", DUE, 100) == 0
    add(inbox, 0, *rest)
    assert inbox.seal("run", DUE, 100) == 4
    assert [(row.attempt, row.step) for row in inbox.reader.rows("run")] == [(1, 1), (1, 2), (1, 3), (2, 1)]


def test_complete_step_waits_for_earlier(inbox: Inbox) -> None:
    """A complete step waits for one that is a little late, and is written after it."""
    add(inbox, 0, step_request(2))
    assert inbox.seal("run", DUE, 5) == 0
    add(inbox, 6, step_request(1))
    inbox.seal("run", DUE, 20)
    assert [row.step for row in inbox.reader.rows("run") if row.ordinal is not None] == [1, 2]


@pytest.mark.parametrize("missing", ["a point", "their number"])
def test_incomplete_step_settles(inbox: Inbox, missing: str) -> None:
    """A step that stays incomplete becomes a row that is marked as partial."""
    parts = split_request(step_request(1, {"a": 0.5, "b": 1.5}))
    del parts[1 if missing == "a point" else -1]
    add(inbox, 0, *parts)
    assert inbox.seal("run", DUE, 999) == 0
    assert inbox.seal("run", DUE, 1000) == 1
    row = inbox.reader.rows("run")[0].row
    assert (row[PARTIAL_KEY], row["b"]) == (1, 1.5)


def test_clock_set_back_holds_nothing(inbox: Inbox) -> None:
    """A step that seems to come from the future is written, also an incomplete one."""
    add(inbox, 10**6, step_request(1, {"loss": 0.5}, counted=False))
    assert inbox.seal("run", DUE, 0) == 1


def test_counts_sum_over_late_steps(inbox: Inbox) -> None:
    """The sum over rows is the last total of an attempt, also when a step comes after a later one's row."""
    for step, attempt, total in ((1, 1, 4), (3, 1, 12), (2, 1, 8), (1, 2, 5)):
        add(inbox, 0, step_request(step, {}, {rows.PICKS.name: total}, attempt=attempt))
        assert inbox.seal("run", DUE, 100) == 1
    assert [row.row.get(PICKS) for row in inbox.reader.rows("run")] == [4, 8, None, 5]


def test_reader_sees_pending_rows(inbox: Inbox, tmp_path: Path) -> None:
    """A reader in another process sees steps without a row as the row that they would get."""
    add(inbox, 0, *(step_request(step, {}, {rows.PICKS.name: 4 * step}) for step in (1, 2)))
    with InboxReader.open(tmp_path) as reader:
        assert [(row.step, row.row[PICKS]) for row in reader.rows("run")] == [(1, 4), (2, 4)]


def test_restart_continues_ordinals(tmp_path: Path) -> None:
    """After a restart rows and deliveries are as before, and the next ordinal follows."""
    with Inbox(tmp_path) as inbox:
        add(inbox, 0, step_request(1, {}, {rows.PICKS.name: 4}), step_request(2, {}, {rows.PICKS.name: 8}))
        inbox.seal("run", DUE, 100)
        inbox.mark_delivered("run", [0])
    with Inbox(tmp_path) as inbox:
        add(inbox, 0, step_request(3, {}, {rows.PICKS.name: 13}))
        inbox.seal("run", DUE, 100)
        assert [(row.ordinal, row.row[PICKS]) for row in inbox.undelivered("run")] == [(1, 4), (2, 5)]
    assert delivered_steps(tmp_path, "run") == 1


def test_raised_ordinal_is_kept(inbox: Inbox) -> None:
    """A row gets no ordinal below the one that wandb's server has."""
    add(inbox, 0, step_request(1))
    inbox.raise_ordinal("run", 40)
    inbox.seal("run", DUE, 100)
    assert inbox.undelivered("run")[0].ordinal == 40


@pytest.mark.usefixtures("inbox")
def test_state_directory_has_one_writer(tmp_path: Path) -> None:
    """A second writer of a state directory is refused, and the error says why."""
    with pytest.raises(BridgeError, match="another bridge"):
        Inbox(tmp_path)


def test_rank_records_are_dropped(inbox: Inbox) -> None:
    """A time stamp that has a step and nothing for wandb gets no row, and is dropped."""
    add(inbox, 0, split_request(step_request(1))[0])
    assert inbox.seal("run", DUE, 5000) == 0
    inbox.tidy(ABANDONED_NS + 1)
    assert inbox.store.connection.execute("SELECT count(*) FROM steps").fetchone() == (0,)


def test_damaged_inbox_is_an_error(tmp_path: Path) -> None:
    """A damaged or missing inbox is an error that names the file; its count of delivered steps is 0."""
    (tmp_path / "inbox.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(BridgeError, match=r"inbox\.sqlite"):
        InboxReader.open(tmp_path)
    with pytest.raises(BridgeError, match="not usable"):
        Inbox(tmp_path)
    assert delivered_steps(tmp_path, "run") == delivered_steps(tmp_path / "none", "run") == 0


def test_poll_skips_finished_runs(inbox: Inbox) -> None:
    """The list of runs with work needs no statement of SQLite, however many runs are finished."""
    for first in range(0, 1000, 100):
        runs = [f"run-{number}" for number in range(first, first + 100)]
        inbox.add(decode(runs_request(runs, 1)).points, 0)
        with inbox.transaction():
            for run_id in runs:
                inbox.seal(run_id, Due(settle_ns=1, linger_ns=0), 1)
                inbox.mark_delivered(run_id, [0])
    inbox.add(decode(runs_request(["live"], 1)).points, 0)
    statements: list[str] = []
    inbox.store.connection.set_trace_callback(statements.append)
    assert inbox.waiting_runs() == {"live": True}
    assert statements == []


def test_only_dropping_waits_for_no_disk(inbox: Inbox) -> None:
    """Points, rows and ordinals outlast the machine's power; that wandb has rows is found out again after it."""
    statements: list[str] = []
    inbox.store.connection.set_trace_callback(statements.append)

    def modes() -> list[str]:
        begins = [index for index, statement in enumerate(statements) if statement == "BEGIN IMMEDIATE"]
        levels = [statements[index - 1].rpartition(" ")[2] for index in begins]
        statements.clear()
        return levels

    add(inbox, 0, step_request(1))
    assert modes() == ["FULL"]
    inbox.seal("run", DUE, 100)
    inbox.raise_ordinal("run", 5)
    assert modes() == ["FULL", "FULL"]
    inbox.mark_delivered("run", [0])
    assert modes() == ["NORMAL"]
    add(inbox, 0, step_request(2))
    assert modes() == ["FULL"]
    with inbox.transaction():  # with points that are to be durable
        add(inbox, 0, step_request(3))
        inbox.mark_delivered("run", [5])
    assert modes() == ["FULL"]
