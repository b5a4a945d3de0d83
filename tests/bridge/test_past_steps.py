"""Steps that wandb has are recognised when they come again, and take little space."""

from __future__ import annotations

import pytest

from otel_train.bridge import Inbox
from otel_train.bridge.arrivals import Added
from otel_train.bridge.decode import Point, decode
from otel_train.bridge.past_steps import ABANDONED_NS, IDLE_NS, PAST_STEPS
from otel_train.bridge.row_order import Due
from tests.support.step_requests import numbered_points, step_request

DUE = Due(settle_ns=1000, linger_ns=10)


def deliver(inbox: Inbox, points: list[Point], now_ns: int) -> None:
    """Have points arrive, make the rows that are due, and note that wandb has them."""
    inbox.add(points, now_ns)
    while inbox.seal("run", DUE, now_ns + 100):
        inbox.mark_delivered("run", [row.ordinal for row in inbox.undelivered("run")])


def count(inbox: Inbox, table: str) -> int:
    """Return how many entries a table has."""
    (entries,) = inbox.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(entries)


def test_delivered_steps_leave_nothing(inbox: Inbox) -> None:
    """Numbered steps that wandb has leave no rows in the tables, and are recognised when they come again."""
    for step in range(1, 40):
        deliver(inbox, numbered_points(step), 0)
    assert [count(inbox, table) for table in ("steps", "rows", "past", "points", "together")] == [0] * 5
    assert not inbox.waiting_runs()
    assert [inbox.add(numbered_points(step), 0) for step in (1, 39)] == [Added(duplicates=4)] * 2


def test_unnumbered_steps_stay_recognised(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps without numbers are recognised: the newest by their time stamps, older ones by a floor."""
    monkeypatch.setattr("otel_train.bridge.past_steps.PAST_STEPS", 20)
    steps = [list(decode(step_request(step, {"loss": 0.5})).points) for step in range(60)]
    for points in (*steps[:30], *steps[31:]):
        deliver(inbox, points, 0)
    assert count(inbox, "past") <= 22 < PAST_STEPS
    assert [inbox.add(points, 0) for points in steps] == [Added(duplicates=2)] * 60


@pytest.mark.parametrize(("later", "kept"), [(ABANDONED_NS - 1, 1), (ABANDONED_NS + 2000, 0)])
def test_gap_is_kept_an_hour(inbox: Inbox, later: int, kept: int) -> None:
    """Steps after a gap are kept by their time stamps until it can't be filled any more."""
    deliver(inbox, numbered_points(2), 0)
    deliver(inbox, [], 1000)
    assert count(inbox, "past") == 1
    inbox.tidy(later)
    assert count(inbox, "past") == kept
    assert inbox.add(numbered_points(2), later) == Added(duplicates=4)


def test_idle_run_keeps_little(inbox: Inbox) -> None:
    """Of an idle run only its id and its progress stay; a later attempt works as ever."""
    deliver(inbox, numbered_points(1), 0)
    inbox.tidy(IDLE_NS + 1)
    assert [count(inbox, table) for table in ("totals", "run_series", "series", "past")] == [0] * 4
    assert inbox.add(numbered_points(1), IDLE_NS + 2) == Added(duplicates=4)
    deliver(inbox, numbered_points(1, attempt=2), IDLE_NS + 1000)
    assert inbox.reader.delivered_steps("run") == 2
