"""Rows are in the order of their steps, whatever the order in which points arrive."""

from __future__ import annotations

import random
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.bridge import Inbox
from otel_train.bridge.arrivals import Added
from otel_train.bridge.row_order import Due
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import PARTIAL_KEY, rows
from tests.support.step_requests import numbered_points

DUE = Due(settle_ns=1000, linger_ns=10)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(0, 30))
def test_any_arrival_gives_same_rows(rng: random.Random, size: int, again: int) -> None:
    """Points in any order, repeated, with restarts and deliveries in between, give the same rows."""
    points = [point for step in range(1, 9) for point in numbered_points(step)]
    points += rng.choices(points, k=again)
    rng.shuffle(points)
    at_once = Due(settle_ns=1000, linger_ns=0)
    delivered: list[tuple[int, dict[str, float]]] = []
    with TemporaryDirectory(dir="/dev/shm") as folder:  # where a synced file costs nothing
        while points:
            with Inbox(folder) as inbox:  # each run of the loop is a bridge that is killed
                for now_ns in range(rng.randint(1, 9)):
                    inbox.add([points.pop() for _ in range(min(size, len(points)))], now_ns)
                    if rng.random() < 0.8:
                        inbox.seal("run", at_once, now_ns)
                        inbox.seal_at_arrival("run", at_once)
                    fresh = inbox.undelivered("run", limit=rng.randint(0, 3))
                    delivered += [(row.ordinal, row.row) for row in fresh]
                    inbox.mark_delivered("run", [row.ordinal for row in fresh])
        with Inbox(folder) as inbox:
            inbox.seal("run", at_once, 9)
            delivered += [(row.ordinal, row.row) for row in inbox.undelivered("run")]
    assert [ordinal for ordinal, _ in delivered] == list(range(8))
    assert [(row[STEP_KEY], row[rows.PICKS.wandb_key], PARTIAL_KEY in row) for _, row in delivered] == [
        (10 * step, 4, False) for step in range(1, 9)
    ]


def test_backlog_waits_for_last_request(inbox: Inbox) -> None:
    """A backlog waits for the request that a collector had in flight and sends last."""
    for step in (2, 3, 4, 5, 6):
        inbox.add(numbered_points(step), step)
        assert inbox.seal("run", DUE, 900) == 0
    inbox.add(numbered_points(1), 900)
    assert inbox.seal("run", DUE, 910) == 6
    assert [row.step for row in inbox.reader.rows("run")] == [10, 20, 30, 40, 50, 60]


def test_first_numbered_step_lingers(inbox: Inbox) -> None:
    """The first step of an attempt waits, as one before may come; later numbered steps do not."""
    inbox.add(numbered_points(1), 0)
    assert [inbox.seal("run", DUE, now_ns) for now_ns in (9, 10)] == [0, 1]
    inbox.add(numbered_points(2), 11)
    assert inbox.seal("run", DUE, 11) == 1


def test_swapped_attempts_are_ordered(inbox: Inbox) -> None:
    """The first attempt's rows come first although the second attempt's request overtook them."""
    inbox.add(numbered_points(1, attempt=2), 0)
    inbox.add(numbered_points(1), 9)
    inbox.seal("run", DUE, 10)
    inbox.seal("run", DUE, 200)
    assert [row.attempt for row in inbox.reader.rows("run")] == [1, 2]


def test_missing_step_is_given_up(inbox: Inbox) -> None:
    """A missing step is given up after the settle time; when it comes later its row is partial and counted as late."""
    for step, now_ns in ((1, 0), (3, 5)):
        inbox.add(numbered_points(step), now_ns)
    assert [inbox.seal("run", DUE, now_ns) for now_ns in (10, 1004, 1005)] == [1, 0, 1]
    inbox.add(numbered_points(4), 1006)
    assert inbox.seal("run", DUE, 1006) == 1
    assert inbox.add(numbered_points(2), 1007) == Added(new=5, late=4)
    assert inbox.seal("run", DUE, 1007) == 1
    assert [
        (row.step, row.row.get(rows.PICKS.wandb_key), PARTIAL_KEY in row.row) for row in inbox.reader.rows("run")
    ] == [
        (10, 4, False),
        (30, 8, False),
        (40, 4, False),
        (20, None, True),
    ]


def test_downtime_does_not_count(inbox: Inbox) -> None:
    """The time without a bridge is no part of the settle time: a missing step could not come."""
    inbox.add(numbered_points(2), 0)
    due = Due(settle_ns=1000, linger_ns=10, since_ns=5000)
    assert (inbox.seal("run", due, 5999), inbox.seal("run", due, 6000)) == (0, 1)


def test_new_attempt_waits_for_quiet(inbox: Inbox) -> None:
    """A new attempt's first row waits until the attempt before is quiet, whose end may come late."""
    inbox.add(numbered_points(1), 0)
    inbox.add(numbered_points(1, attempt=2), 1)
    assert [inbox.seal("run", DUE, now_ns) for now_ns in (10, 99)] == [1, 0]
    inbox.add(numbered_points(2), 99)
    assert [inbox.seal("run", DUE, now_ns) for now_ns in (99, 100)] == [1, 1]
    assert [row.attempt for row in inbox.reader.rows("run")] == [1, 1, 2]
