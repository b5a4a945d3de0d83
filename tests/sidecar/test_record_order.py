"""Which records are sent, and in which order."""

from __future__ import annotations

import pytest

from otel_train.ring import Kind, Record
from otel_train.sidecar.record_order import HOLD_NS, MAX_OPEN, Outgoing, RecordOrder
from tests.support.rank_ring import SECOND, time_of


def record_of(text: str) -> Record:
    """Return a record such as R2, the rank's of step 2, or LC1.9, the cluster's of values logged between two steps."""
    kind, time_s = text.lstrip("L")[0], float(text.lstrip("L")[1:])
    time_ns = time_of(0) + round(time_s * SECOND)
    kinds = {"R": Kind.RANK, "C": Kind.CLUSTER}
    return Record(round(100 * time_s), int(time_s), time_ns, kinds[kind], (), logged=text[0] == "L")


def text_of(out: Outgoing) -> str:
    """Return a record's text, with a + where it names the step."""
    record = out.record
    time_s = (record.time_ns - time_of(0)) / SECOND
    return f"{'L' * record.logged}{record.kind.name[0]}{time_s:g}{'+' * out.names_step}"


def take(order: RecordOrder, written: str) -> str:
    """Return what is sent of these records."""
    return " ".join(text_of(out) for text in written.split() for out in order.take(record_of(text), ()))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("R1 C1 R2 C2", "R1+ C1 R2+ C2"),
        ("R1 R2 C1 R3 C2 C3", "R1+ C1 R2+ C2 R3+ C3"),
        ("R1 R2 R3 R4 C1 C2 C3", "R1+ C1 R2+ C2 R3+ C3"),
        ("R1 R2 R3 C3 R4 C4", "R1+ R2+ R3+ C3 R4+ C4"),
        ("C1 R2", "C1+"),
        # Logged values: the rank's have a time of their own, the cluster's one before the next step's.
        ("R1 C1 LR1.5 R2 LC1.9 C2", "R1+ C1 LR1.5+ LC1.9+ R2+ C2"),
        ("R1 LR1.5 R2 R3 C1 LC1.9 C2", "R1+ C1 LR1.5+ LC1.9+ R2+ C2"),
        ("R1 C1 LR1.95 R2 LC1.8 LC1.9 C2", "R1+ C1 LC1.8+ LC1.9+ LR1.95+ R2+ C2"),
        ("R1 C1 R2 LC1.9 C2 R3 C3", "R1+ C1 LC1.9+ R2+ C2 R3+ C3"),
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


def test_logged_values_ignore_interval() -> None:
    """Logged values are sent whatever the interval is, and shift it for no others; they are no step that is shown."""
    order = RecordOrder(3 * SECOND, expects_cluster=False)
    assert take(order, "R1 LR1.5 R2 LR2.5 R3 LR3.5 R4 LR4.5") == "R1+ LR1.5+ LR2.5+ LR3.5+ R4+ LR4.5+"
    assert [text_of(out) for out in order.show()] == []


def test_lone_rank_names_logged_step_once() -> None:
    """A lone rank's logged record is its own and the cluster's under one time stamp, which has the step once."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, "R1 C1 LR1.5 LC1.5 R2 C2") == "R1+ C1 LR1.5+ LC1.5 R2+ C2"


def test_last_logged_values_are_sent() -> None:
    """Values that a rank logs after its last step wait for the cluster's no longer than the end, or a quiet moment."""
    for send in (RecordOrder.release, RecordOrder.show):
        order = RecordOrder(0, expects_cluster=True)
        assert (take(order, "R1 C1 LR1.5"), order.waits) == ("R1+ C1", True)
        assert ([text_of(out) for out in send(order)], order.waits) == (["LR1.5+"], False)


def test_wait_for_cluster_is_bounded() -> None:
    """After a bounded wait, on a clock that is never set, a rank's values are sent until the cluster's come again."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, "R1 R2") == ""
    order.note_time(5)
    assert [*order.give_up(5 + HOLD_NS)] == []
    assert [out.record.step for out in order.give_up(6 + HOLD_NS)] == [1, 2]
    assert take(order, "R3 C4 R5 R6 C5") == "R3+ C4+ R5+ C5"


def test_open_records_are_bounded() -> None:
    """A rank whose reductions never come back keeps a bounded number of records waiting, the newest."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, " ".join(f"R{step}" for step in range(1, 200))) == ""
    waiting = [out.record.step for out in order.release()]
    assert waiting == list(range(200 - MAX_OPEN, 200))
