"""Which records are sent, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from otel_train.ring import Kind, Record
from otel_train.sidecar.record_order import HOLD_NS, MAX_OPEN, Outgoing, RecordOrder
from tests.support.rank_ring import SECOND, time_of


def record_of(text: str) -> Record:
    """Return a record such as R2, the rank's of step 2, or LC1.9, the cluster's of values logged between two steps."""
    kind, time_s = text.lstrip("L")[0], float(text.lstrip("L")[1:])
    time_ns = time_of(0) + round(time_s * SECOND)
    kinds = {"R": Kind.RANK, "C": Kind.CLUSTER}
    return Record(round(1000 * time_s), int(time_s), time_ns, kinds[kind], (), logged=text[0] == "L")


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
        ("R1 C1 LR1.5 LC1.6", "R1+ C1"),
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
    """Logged values are sent whatever the interval is, with the next step; they shift it for no others."""
    order = RecordOrder(3 * SECOND, expects_cluster=False)
    assert take(order, "R1 LR1.5 R2 LR2.5 R3 LR3.5 R4 LR4.5") == "R1+ LR1.5+ LR2.5+ LR3.5+ R4+"
    assert [text_of(out) for out in order.show()] == ["LR4.5+"]


def test_lone_rank_names_logged_step_once() -> None:
    """A lone rank's logged record is its own and the cluster's under one time stamp, which has the step once."""
    order = RecordOrder(0, expects_cluster=True)
    assert take(order, "R1 C1 LR1.5 LC1.5 R2 C2") == "R1+ C1 LR1.5+ LC1.5 R2+ C2"


@pytest.mark.parametrize("send", [RecordOrder.release, RecordOrder.show])
@pytest.mark.parametrize(
    ("written", "before", "after"),
    [
        ("R1 C1 LR1.5", "R1+ C1", "LR1.5+"),
        ("R1 C1 R2 LR2.5 C2 LC2.6", "R1+ C1 C2+", "R2 LR2.5+ LC2.6+"),
        ("R1 LR1.5 R2 LR2.5", "R1+ LR1.5+", "R2+ LR2.5+"),
        ("R1 LR1.5 LR1.6", "R1+", "LR1.5+ LR1.6+"),
    ],
)
def test_end_sends_last_step_first(
    send: Callable[[RecordOrder], Iterable[Outgoing]], written: str, before: str, after: str
) -> None:
    """At the end, or in a quiet moment, the rank's newest step goes out though it is not due, in its place."""
    order = RecordOrder(3 * SECOND, expects_cluster="C" in written)
    assert take(order, written) == before
    assert (" ".join(map(text_of, send(order))), order.waiting_ns) == (after, None)


def test_superseded_step_is_not_waited_for() -> None:
    """A step that was not due when newer values were sent is given up: a sidecar that goes on waits for nothing."""
    order = RecordOrder(9 * SECOND, expects_cluster=False, rank_time_ns=time_of(1), logged_time_ns=time_of(3))
    order.resume([(record_of(text), ()) for text in ("R1", "R2", "LR3")])
    assert (order.waiting_ns, [*order.show()]) == (None, [])


def test_many_logged_values_are_bounded() -> None:
    """Values that are logged on and on without a step are sent before they are too many, the step before them first."""
    order = RecordOrder(99 * SECOND, expects_cluster=False)
    written = " ".join(f"LR2.{number:03}" for number in range(100, 300))
    sent = take(order, f"R1 R2 {written}").split()
    assert (sent[:3], len(sent)) == (["R1+", "R2+", "LR2.1+"], 202 - MAX_OPEN)


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
