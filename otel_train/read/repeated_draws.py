"""Tell how often a rank's draws come again at once, as those of its loader's workers do that have one seed.

Workers take turns, so the counts of an interval are those of the one before more often than chance explains: of W alike
workers, in (W - 1) / W of the intervals besides the chance of equal counts.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from operator import eq

from otel_train.read.history import MixInterval
from otel_train.read.mix import Mix

MOST_WORKERS = 16
"""Counts that are equal for longer were not drawn: a mixer that deals by turns has the same in each interval."""
_DEVIATIONS = 3.0
_AT_ONCE = 1 << 16
"""Intervals that are compared together: equal counts among them are judged once."""


def repetition(ranks: Iterable[Sequence[MixInterval]]) -> float:
    """Return how many times a draw comes on average; 1 where chance explains the equal counts.

    Args:
        ranks: The intervals of each rank, in order.
    """
    drawn = [_draws(Mix.of(intervals)) for intervals in ranks]
    totals = [math.fsum(map(sum, columns)) for columns in zip(*(one.picks for one in drawn if one.picks), strict=True)]
    whole = math.fsum(totals)
    chances: dict[tuple[float, ...], float] = {}
    excess = room = variance = 0.0
    for one in drawn:
        for equal, same_total in _compared(one):
            excess += equal
            for draws, number in same_total.items():
                chance = chances.get(draws, -1.0)
                if chance < 0:
                    if len(chances) >= _AT_ONCE:
                        chances.clear()
                    chance = chances[draws] = _probability(draws, totals, whole)
                excess -= number * chance
                room += number * (1 - chance)
                variance += number * chance * (1 - chance)
    if excess <= _DEVIATIONS * math.sqrt(variance) or excess >= room * (1 - 1 / (MOST_WORKERS + 1)):
        return 1.0
    return room / (room - excess)


def _compared(one: Mix) -> Iterator[tuple[int, Counter[tuple[float, ...]]]]:
    """Yield how many intervals have the counts of the one before, and the counts of those that have its total.

    Args:
        one: A rank's draws.
    """
    for begin in range(0, len(one) - 1, _AT_ONCE):
        part = [column[begin : begin + _AT_ONCE + 1] for column in one.picks]
        totals = one.totals()[begin : begin + _AT_ONCE + 1]
        after = list(zip(*(column[1:] for column in part), strict=True))
        yield (
            sum(map(eq, zip(*part, strict=True), after)),
            Counter(compress(after, map(eq, totals, totals[1:]))),
        )


def _draws(mix: Mix) -> Mix:
    """Return the draws, whole numbers."""
    drawn = mix.drawn()
    if drawn is not mix:
        drawn.picks = [array("d", map(round, column)) for column in drawn.picks]
    return drawn


def _probability(draws: Sequence[float], totals: Sequence[float], whole: float) -> float:
    """Return the multinomial's probability of an interval's counts, by the shares of all draws."""
    logarithm = math.lgamma(sum(draws) + 1)
    for count, total in zip(draws, totals, strict=True):
        if count:
            logarithm += count * math.log(total / whole) - math.lgamma(count + 1)
    return min(1.0, math.exp(logarithm))
