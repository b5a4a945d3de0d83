"""Rows are made in the transaction that takes their points, where nothing is to be waited for."""

from __future__ import annotations

from contextlib import suppress

import pytest

from otel_train.bridge import Inbox
from otel_train.bridge.decode import decode
from otel_train.bridge.errors import InboxFullError
from otel_train.bridge.row_order import Due
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import rows
from tests.support.step_requests import numbered_points, split_request, step_request

DUE = Due(settle_ns=1000, linger_ns=0)


@pytest.fixture
def admitted(inbox: Inbox) -> Inbox:
    """Return an inbox whose run is open in wandb and has its first row there."""
    inbox.add(numbered_points(1), 0)
    assert inbox.seal("run", DUE, 0) == 1
    inbox.mark_delivered("run", [0])
    inbox.seal_at_arrival("run", DUE)
    return inbox


def steps(inbox: Inbox) -> list[float]:
    """Return the steps of the rows that wandb is due to get."""
    return [row.row[STEP_KEY] for row in inbox.undelivered("run")]


def test_due_step_is_row_at_once(admitted: Inbox) -> None:
    """A whole step that is next has its row, with its counts, when `add` returns; its repetition changes nothing."""
    admitted.add([*numbered_points(2), *numbered_points(3)], 0)
    assert [(row.ordinal, row.row[rows.PICKS.wandb_key]) for row in admitted.undelivered("run")] == [(1, 4), (2, 4)]
    assert admitted.add(numbered_points(3), 0).duplicates == 4
    assert admitted.seal("run", DUE, 0) == 0


def test_step_after_gap_waits(admitted: Inbox) -> None:
    """A step after a missing one is stored without a row; both get theirs in order."""
    admitted.add(numbered_points(3), 0)
    assert steps(admitted) == []
    admitted.add(numbered_points(2), 0)
    assert admitted.seal("run", DUE, 0) == 2
    admitted.add(numbered_points(4), 0)
    assert steps(admitted) == [20, 30, 40]


def test_unfinished_step_holds_later_ones(admitted: Inbox) -> None:
    """A step without a number is not overtaken by a later one, whose number says nothing of it."""
    lacking = split_request(step_request(50, {"loss": 0.5}))[1:]
    for part in lacking:
        admitted.add(decode(part).points, 0)
    admitted.add(decode(step_request(60, {"loss": 0.5})).points, 0)
    assert steps(admitted) == []
    assert admitted.seal("run", DUE, 1000) == 2


def test_waiting_step_of_rank_holds_nothing(admitted: Inbox) -> None:
    """A time stamp with nothing but a step, as a rank's record has, is no step that later ones wait for."""
    admitted.add(decode(split_request(step_request(15))[0]).points, 0)
    admitted.add(numbered_points(2), 0)
    assert steps(admitted) == [20]


def test_closed_run_gets_no_rows(admitted: Inbox) -> None:
    """A run that wandb has not open gets rows by `seal` only: its next ordinal may be taken there."""
    admitted.seal_on_request("run")
    admitted.add(numbered_points(2), 0)
    assert steps(admitted) == []
    admitted.raise_ordinal("run", 7)
    admitted.seal_at_arrival("run", DUE)
    admitted.seal("run", DUE, 0)
    admitted.add(numbered_points(3), 0)
    assert [row.ordinal for row in admitted.undelivered("run")] == [7, 8]


def test_failed_transaction_makes_no_row(admitted: Inbox) -> None:
    """A row of a transaction that fails was never made: neither its ordinal nor its counts are used up."""
    with suppress(InboxFullError), admitted.transaction():
        admitted.add(numbered_points(2), 0)
        raise InboxFullError
    assert steps(admitted) == []
    admitted.add(numbered_points(2), 0)
    admitted.seal("run", DUE, 0)
    assert [(row.ordinal, row.row[rows.PICKS.wandb_key]) for row in admitted.undelivered("run")] == [(1, 4)]


def test_writer_is_told_once(admitted: Inbox) -> None:
    """A run has something for the writer until it has looked at the rows that were made."""
    admitted.add(numbered_points(2), 0)
    assert (admitted.waiting_runs(), admitted.has_unread("run")) == ({"run": True}, True)
    admitted.undelivered("run")
    assert (admitted.waiting_runs(), admitted.has_unread("run")) == ({"run": False}, False)


@pytest.mark.parametrize("together", [True, False], ids=["one request", "split"])
def test_nameless_step_gets_no_row(together: bool, admitted: Inbox) -> None:
    """A step whose `train.step` never comes has no row, and the next one has its counts."""
    nameless = [point for point in numbered_points(2) if point.name != rows.STEP.name]
    for points in [nameless] if together else [[point] for point in nameless]:
        admitted.add(points, 0)
    admitted.add(numbered_points(3), 0)
    assert (admitted.seal("run", DUE, 999), admitted.seal("run", DUE, 1000)) == (0, 2)
    (row,) = admitted.undelivered("run")
    assert (row.ordinal, row.row[STEP_KEY], row.row[rows.PICKS.wandb_key]) == (1, 30, 8)
    assert (admitted.nameless_points, admitted.add(numbered_points(2), 1001).late) == (4, 4)
    admitted.add(numbered_points(4), 1001)
    assert steps(admitted) == [30, 40]


def test_nameless_step_is_given_up_at_arrival(admitted: Inbox) -> None:
    """A step without `train.step` that need not be waited for is given up in the transaction that takes it."""
    admitted.seal_at_arrival("run", Due(settle_ns=0, linger_ns=0))
    admitted.add([point for point in numbered_points(2) if point.name != rows.STEP.name], 0)
    admitted.add(numbered_points(3), 0)
    assert (steps(admitted), admitted.nameless_points) == ([30], 4)
