"""Reductions of ranks that come to other steps, whenever they do: what is recorded is right, and nobody is left behind.

The collectives are real sums in one process, so that any order of events can be tried.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.catalogue import Layout, Metric, Reduction
from otel_train.step import reduction
from otel_train.step.alignment import Alignment
from otel_train.step.packing import Reduced
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer

LAYOUT = Layout([Metric("made", Reduction.SUM), Metric("top", Reduction.MAX)])
RANKS = 3
IN_FLIGHT = 2


class Sum:
    """One collective: complete when every rank has given its vector."""

    def __init__(self) -> None:
        self.vectors: list[torch.Tensor] = []

    def give(self, vector: torch.Tensor) -> None:
        """Take a rank's vector; the last one gives all of them the sum."""
        self.vectors.append(vector)
        if self.is_completed():
            total = torch.stack(self.vectors).sum(0)
            for given in self.vectors:
                given.copy_(total)

    def is_completed(self) -> bool:
        """Tell whether the sum is there."""
        return len(self.vectors) == RANKS

    def wait(self) -> None:
        """Do nothing: who waits has asked before."""


class Handle:
    """A rank's end of a process group: its n-th collective meets the n-th of the others."""

    def __init__(self, sums: list[Sum]) -> None:
        self.sums, self.count = sums, 0

    def allreduce(self, vectors: list[torch.Tensor], _: Any) -> Sum:
        """Begin a collective."""
        if self.count == len(self.sums):
            self.sums.append(Sum())
        begun = self.sums[self.count]
        self.count += 1
        begun.give(vectors[0])
        return begun


class LockstepRank:
    """A rank that makes some of the steps; in step n its own power of ten is what it gives, and n is its candidate."""

    def __init__(self, rank: int, sums: list[Sum], steps: list[int], rest: int) -> None:
        handle: Any = Handle(sums)
        group = RankGroup(rank, RANKS, rank, handle, tuple(range(RANKS)))
        self.reducer = Reducer(LAYOUT, group, max_in_flight=IN_FLIGHT, timeout=0.0)
        self.rank, self.steps, self.rest = rank, steps, rest
        self.gave: set[int] = set()
        self.landed: list[Reduced] = []

    def measured(self, step: int) -> Measurements:
        """Return what it gives in a step."""
        return Measurements((float(10**self.rank), float(step), 0.0))

    def go_on(self) -> bool:
        """Make the next step, or close; tell whether there was anything to do."""
        if not self.steps:
            return False
        step = self.steps.pop(0)
        if self.steps:
            self.gave.add(step)
            self.reducer.launch(step, step, self.measured(step))
            self.landed += self.reducer.harvest()
        else:
            rest = self.measured(step) if self.rest else None
            if rest is not None:
                self.gave.add(step)
            self.landed += self.reducer.close(step, step, rest, 0.0)
        return True


def test_question_outlives_landing() -> None:
    """A thread may land what has come while another one, without a lock, asks whether all has."""
    sums: list[Sum] = []
    ranks = [LockstepRank(number, sums, [], 0) for number in range(RANKS)]
    for step in (1, 2):
        for rank in ranks:
            rank.reducer.launch(step, step, rank.measured(step))
    reducer = ranks[0].reducer

    class Landing(Sum):
        """A collective that is complete; whoever asks is interrupted by the other thread."""

        def is_completed(self) -> bool:
            """Tell that it is."""
            reducer._flights[0].work = sums[0]
            ranks[0].landed += reducer.harvest()
            return True

    reducer._flights[0].work = Landing()
    assert reducer.settled
    assert [reduced.step for reduced in ranks[0].landed] == [1, 2]


def run_ranks(plans: list[tuple[list[int], bool]], order: list[int]) -> list[LockstepRank]:
    """Let ranks make their steps in that order, and then all the rest in turns, until nothing changes any more."""
    sums: list[Sum] = []
    ranks = [LockstepRank(number, sums, list(steps), rest) for number, (steps, rest) in enumerate(plans)]
    for number in order:
        ranks[number].go_on()
    while sum(rank.go_on() for rank in ranks):
        pass
    for _ in range(200):
        for rank in ranks:
            rank.landed += rank.reducer.harvest()
    return ranks


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 12), min_size=1).map(sorted), st.booleans()), min_size=RANKS, max_size=RANKS
    ),
    st.lists(st.integers(0, RANKS - 1), max_size=30),
)
def test_row_has_ranks_of_its_step(plans: list[tuple[list[int], bool]], order: list[int]) -> None:
    """A row has the values of each rank that made its step, once; steps rise, all ranks see one row, and all that is
    launched lands.
    """
    ranks = run_ranks(plans, order)
    seen: dict[int, set[tuple[float, ...]]] = {}
    for rank in ranks:
        assert [row.step for row in rank.landed] == sorted({row.step for row in rank.landed})
        assert [row.time_ns for row in rank.landed] == sorted({row.time_ns for row in rank.landed})
        for row in rank.landed:
            made, top, _ = row.values
            present = [other for other in ranks if int(made) // 10**other.rank % 10]
            assert made == sum(10**other.rank for other in present)
            assert all(row.step in other.gave for other in present)
            assert top == row.step
            seen.setdefault(row.step, set()).add((made, top))
        assert rank.reducer.ended
    assert all(len(rows) == 1 for rows in seen.values())


def test_ranks_in_step_lose_nothing() -> None:
    """Ranks that make the same steps lose no row, whichever is ahead and whichever steps they make."""
    for steps in ([1, 2, 3, 4, 5], [1, 11, 21, 31, 41], [3, 4, 10, 11, 30]):
        for order in ([0, 0, 1, 2, 1, 2], [2, 1, 0], [0, 0, 0, 1, 1, 1, 2]):
            ranks = run_ranks([(steps, False)] * RANKS, order)
            assert [(row.step, row.values[0]) for row in ranks[0].landed] == [(step, 111) for step in steps[:-1]]


def test_closed_rank_has_others_rows() -> None:
    """A rank that closes first has the rows of the steps that the others make after it, at rising times."""
    plans = [([1, 2, 3], False), ([1, 2, 3, 4, 5, 6], False), ([1, 2, 3, 4, 5], False)]
    landed = run_ranks(plans, [0] * 3)[0].landed
    assert [(row.step, row.values[0]) for row in landed] == [(1, 111), (2, 111), (3, 110), (4, 110), (5, 10)]
    assert [row.time_ns for row in landed] == sorted({row.time_ns for row in landed})
    plans = [([1, 2, 3], False), ([1, 2, 3, 4], False), ([1, 2, 3, 4], True)]
    landed = run_ranks(plans, [0, 2, 0, 1, 1, 2, 2, 1, 0, 1])[0].landed
    assert [(row.step, row.values[0]) for row in landed] == [(1, 111), (2, 111), (3, 110), (4, 100)]
    assert [row.time_ns for row in landed] == sorted({row.time_ns for row in landed})


@pytest.mark.parametrize("away", [range(3, 6), range(3, 60), range(3, 120)], ids=len)
def test_absent_rank_realigns(away: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that was away, however long, meets its peers again; what they keep waiting is recorded, and the rest is
    counted.
    """
    monkeypatch.setattr(reduction, "_MOST_WAITING", 60)
    steps = list(range(1, 300))
    plans = [(steps, False), (steps, False), ([step for step in steps if step not in away], False)]
    ranks = run_ranks(plans, [0, 1, 2, 0, 1, 2, *[0, 1] * len(away)])
    everybody = {row.step for row in ranks[0].landed if row.values[0] == 111}
    assert set(steps[-10:-1]) <= everybody
    assert set(away[:50]) <= {row.step for row in ranks[0].landed if row.values[0] == 11}
    assert len(ranks[0].landed) + ranks[0].reducer.abandoned == len(steps) - 1


def test_disjoint_steps_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    """Steps that never meet are one warning of each rank."""
    plans = [([*range(begin, begin + 9)], False) for begin in (1, 11, 21)]
    ranks = run_ranks(plans, [0, 0, 1, 1, 2, 2])
    assert [rank.reducer.abandoned > 1 for rank in ranks] == [True] * RANKS
    assert sum("not at the same step" in record.getMessage() for record in caplog.records) == RANKS


def test_stride_misses_no_steps() -> None:
    """A session that is told each tenth step misses none of the nine between."""
    alignment = Alignment(longest=4)
    assert [list(alignment.missed(step)) for step in (1, 11, 21, 51, 61)] == [[], [], [], [31, 41], []]
    assert list(alignment.missed(1000)) == [71, 81, 91, 101]


def test_known_stride_tells_each_absence() -> None:
    """With a stride that is known, a rank that comes to one step only between its absences makes up for each."""
    alignment = Alignment(longest=4)
    assert [list(alignment.missed(step, 20)) for step in (20, 60)] == [[], [40]]
    assert not alignment.follows(100)
    assert [list(alignment.missed(step, 20)) for step in (100, 120)] == [[80], []]
