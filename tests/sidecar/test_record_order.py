"""Which records are sent, and in which order."""

from __future__ import annotations

import pytest

from otel_train.ring import Kind, Record
from otel_train.sidecar.record_order import HOLD_NS, MAX_OPEN, RecordOrder
from tests.support.rank_ring import SECOND, time_of


def take(order: RecordOrder, written: str) -> str:
    """Return what is sent of these records, such as R2 for the rank's of step 2; a + where it names the step."""
    records = [
        Record(int(text[1:]), int(text[1:]), time_of(int(text[1:])), {"R": Kind.RANK, "C": Kind.CLUSTER}[text[0]], ())
        for text in written.split()
    ]
    return " ".join(
        f"{out.record.kind.name[0]}{out.record.step}{'+' * out.names_step}"
        for record in records
        for out in order.take(record, ())
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("R1 C1 R2 C2", "R1+ C1 R2+ C2"),
        ("R1 R2 C1 R3 C2 C3", "R1+ C1 R2+ C2 R3+ C3"),
        ("R1 R2 R3 R4 C1 C2 C3", "R1+ C1 R2+ C2 R3+ C3 R4+"),
        ("R1 R2 R3 C3 R4 C4", "R1+ R2+ R3+ C3 R4+ C4"),
        ("C1 R2", "C1+ R2+"),
    ],
)
def test_rank_waits_for_cluster_values(written: str, expected: str) -> None:
    """Times never go back, and a step is named once; a later cluster record shows that a reduction was abandoned."""
    assert take(RecordOrder(0, expects_cluster=True), written) == expected


def test_lone_rank_never_waits() -> None:
    """A rank that emits no cluster's values sends its own at once, at most once an interval."""
    order = RecordOrder(2 * SECOND, expects_cluster=False)
    assert take(order, "R1 R2 R3 R4") == "R1+ R3+"
    assert [out.record.step for out in order.show()] == [4]


def test_wait_for_cluster_is_bounded() -> None:
    """After a bounded wait, on a clock that is never set, a rank's values are sent until the cluster's come again."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, "R1 R2") == "R1+"
    order.note_time(5)
    assert [*order.give_up(5 + HOLD_NS)] == []
    assert [out.record.step for out in order.give_up(6 + HOLD_NS)] == [2]
    assert take(order, "R3 C4 R5 R6") == "R3+ C4+ R5+"


def test_open_records_are_bounded() -> None:
    """A rank whose reductions never come back keeps a bounded number of records waiting, the newest."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, " ".join(f"R{step}" for step in range(1, 200))) == "R1+"
    waiting = [out.record.step for out in order.release()]
    assert waiting == list(range(200 - MAX_OPEN, 200))
