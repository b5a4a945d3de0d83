"""Values that wait for a reduction are given to it so that those of one step meet, and those of two come apart."""

from __future__ import annotations

from collections.abc import Sequence

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
                    own.give_back(number, lane)
                elif of_rank:
                    arrived += [late.step for late in of_rank if late.step is not None]
        if not any(waiting):
            break
    assert sorted(arrived) == sorted(step for steps in ranks for step in steps)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 30), max_size=6), min_size=1, max_size=4), st.integers(1, 5), st.data())
def test_common_steps_stay_together(ranks: list[set[int]], under_way: int, data: st.DataObject) -> None:
    """Steps that some ranks log before one reduction arrive once, with the values of all of these ranks, however much
    later a rank sees than another one what came of a reduction.
    """
    waiting = [LoggedValues(under_way) for _ in ranks]
    for own, steps in zip(waiting, ranks, strict=True):
        own.add(value(step) for step in sorted(steps))
    flights: list[list[dict[int, Sequence[LateValue]]]] = []
    landed = [0] * len(ranks)
    arrived: dict[int, list[float]] = {}
    for number in range(3000):
        for rank, own in enumerate(waiting):
            least = max(landed[rank], number - under_way + 1)
            until = data.draw(st.integers(least, max(least, number)))
            for index, flight in enumerate(flights[landed[rank] : until]):
                for lane in flight[rank]:
                    if len({of_rank[lane][0].step for of_rank in flight if lane in of_rank}) > 1:
                        own.give_back(landed[rank] + index, lane)
            landed[rank] = until
        flights.append([own.take(number) for own in waiting])
        for lane in range(LANES):
            meeting = [late for of_rank in flights[-1] for late in of_rank.get(lane, ())]
            if len({late.step for late in meeting}) == 1:
                arrived.setdefault(meeting[0].step or 0, []).append(sum(late.weight for late in meeting))
        if number > 2 * under_way and not any(waiting) and not any(map(any, flights[-under_way - 1 :])):
            break
    assert arrived == {step: [sum(step in steps for steps in ranks)] for step in set().union(*ranks)}


def test_many_ranks_come_apart() -> None:
    """Far more ranks than lanes, each with a step of its own, do not block each other for long."""
    waiting = [LoggedValues() for _ in range(64)]
    for rank, own in enumerate(waiting):
        own.add([value(1000 + 7 * rank)])
    for number in range(2000):
        taken = [(own, lane) for own in waiting for lane in own.take(number)]
        lanes = [lane for _, lane in taken]
        for own, lane in taken:
            if lanes.count(lane) > 1:
                own.give_back(number, lane)
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


def test_later_values_are_later_batch() -> None:
    """What a rank logs for a step of which it has something under way meets the ranks that have nothing of it there."""
    one, other = LoggedValues(3), LoggedValues(3)
    one.add([value(4)])
    (lane,) = one.take(0)
    one.add([value(4, name="more")])
    other.add([value(4, name="more")])
    assert one.take(1).keys() == other.take(1).keys() != set()
    one.give_back(0, lane)
    assert [late.metric.name for late in one.take_all()] == ["eval"]


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
