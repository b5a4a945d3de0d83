"""Values that wait for a reduction are given to it so that those of one step meet, and those of two come apart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.catalogue import Metric
from otel_train.step.late_packing import LANES
from otel_train.step.late_values import LateValue
from otel_train.step.logged_values import MOST_LOGGED, LoggedValues


def value(step: int, total: float = 1.0, name: str = "eval") -> LateValue:
    """Return a value that was logged for a step."""
    return LateValue(Metric(name), total, 1.0, step)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 2**53), max_size=20), min_size=1, max_size=6))
def test_steps_come_apart(ranks: list[set[int]]) -> None:
    """Whatever steps the ranks have, each value arrives once, beside those of no other step."""
    waiting = [LoggedValues() for _ in ranks]
    for own, steps in zip(waiting, ranks, strict=True):
        own.add(value(step) for step in sorted(steps))
    arrived: list[int] = []
    for number in range(20_000):
        taken = [own.take(number) for own in waiting]
        for lane in range(LANES):
            meet = [of_rank.get(lane, ()) for of_rank in taken]
            meeting = {late.step for of_rank in meet for late in of_rank}
            for own, of_rank in zip(waiting, meet, strict=True):
                if len(meeting) > 1 and of_rank:
                    own.give_back(of_rank)
                elif of_rank:
                    arrived += [late.step for late in of_rank if late.step is not None]
        if not any(waiting):
            break
    assert sorted(arrived) == sorted(step for steps in ranks for step in steps)


def test_many_ranks_come_apart() -> None:
    """Far more ranks than lanes, each with a step of its own, do not block each other for long."""
    waiting = [LoggedValues() for _ in range(64)]
    for rank, own in enumerate(waiting):
        own.add([value(1000 + 7 * rank)])
    for number in range(2000):
        taken = [(own, lane, late) for own in waiting for lane, late in own.take(number).items()]
        lanes = [lane for _, lane, _ in taken]
        for own, lane, late in taken:
            if lanes.count(lane) > 1:
                own.give_back(late)
        if not any(waiting):
            break
    assert not any(waiting)


def test_ranks_of_one_step_meet() -> None:
    """Ranks that have logged a step put it into the same lane of the same reduction, all its keys at once."""
    one, other = LoggedValues(), LoggedValues()
    one.add([value(7), value(7, name="more")])
    other.add([value(7)])
    (lane,), (same,) = one.take(3), other.take(3)
    assert (lane, bool(one), bool(other)) == (same, False, False)


def test_calls_for_step_add_up() -> None:
    """Several calls for one step are one value of their weight."""
    logged = LoggedValues()
    logged.add([value(7, 2.0), value(7, 4.0)])
    assert logged.take_all() == [LateValue(Metric("eval"), 6.0, 2.0, 7)]


def test_memory_has_bound() -> None:
    """A job whose reductions stand still keeps the newest steps."""
    logged = LoggedValues()
    logged.add(value(step) for step in range(MOST_LOGGED + 5))
    assert [late.step for late in logged.take_all()] == [*range(5, MOST_LOGGED + 5)]
