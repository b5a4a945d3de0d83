"""Ranks in one process, whose collectives are real sums: any order of their steps can be tried."""

from __future__ import annotations

from typing import Any

import torch

from otel_train.catalogue import Layout, Metric, Reduction
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
