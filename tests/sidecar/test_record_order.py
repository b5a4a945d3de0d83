"""Which records are sent, and in which order."""

from __future__ import annotations

import pytest

from otel_train.ring import Kind, Record
from otel_train.sidecar.record_order import HOLD_NS, RecordOrder

SECOND = 10**9


def record(step: int, kind: Kind) -> Record:
    """Return a record of a step, a second after the one before."""
    return Record(step, step, (100 + step) * SECOND, kind, ())


def sent(order: RecordOrder, *written: str) -> list[str]:
    """Return what is sent of these records, such as R2 for the rank's of step 2; a + where it names the step."""
    kinds = {"R": Kind.RANK, "C": Kind.CLUSTER}
    return [
        f"{out.record.kind.name[0]}{out.record.step}{'+' * out.names_step}"
        for each in written
        for out in order.take(record(int(each[1:]), kinds[each[0]]), ())
    ]


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
    """Times never go back, and a step is named once; an abandoned reduction is known by a later one."""
    assert sent(RecordOrder(0, expects_cluster=True), *written.split()) == expected.split()


def test_lone_rank_never_waits() -> None:
    """A rank that emits no cluster's values sends its own at once, at most once an interval."""
    order = RecordOrder(2 * SECOND, expects_cluster=False)
    assert sent(order, "R1", "R2", "R3", "R4") == ["R1+", "R3+"]
    assert [out.record.step for out in order.show()] == [4]


def test_wait_for_cluster_is_bounded() -> None:
    """On a clock that is never set; after it the rank's values go out at once, until the cluster's come again."""
    order = RecordOrder(0, expects_cluster=True)
    assert sent(order, "R1", "R2") == ["R1+"]
    order.note_time(5)
    assert [*order.give_up(5 + HOLD_NS)] == []
    assert [out.record.step for out in order.give_up(6 + HOLD_NS)] == [2]
    assert sent(order, "R3", "C4", "R5", "R6") == ["R3+", "C4+", "R5+"]
