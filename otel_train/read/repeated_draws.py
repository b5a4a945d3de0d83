"""Tell how often a rank's draws come again at once, as those of its loader's workers do that have one seed.

Workers take turns, so the counts of an interval are those of the one before more often than chance explains: of W alike
workers, in (W - 1) / W of the intervals besides the chance of equal counts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from otel_train.read.history import MixInterval
from otel_train.read.mix import Mix

MOST_WORKERS = 16
"""Counts that are equal for longer were not drawn: a mixer that deals by turns has the same in each interval."""
_DEVIATIONS = 3.0
_REMEMBERED = 1 << 16
"""Counts whose probability is remembered: those of an interval come again and again."""


def repetition(ranks: Iterable[Sequence[MixInterval]]) -> float:
    """Return how many times a draw comes on average; 1 where chance explains the equal counts.

    Args:
        ranks: The intervals of each rank, in order.
    """
    drawn = [_draws(Mix.of(intervals)) for intervals in ranks]
    totals = [math.fsum(map(sum, columns)) for columns in zip(*filter(None, drawn), strict=True)]
    whole = math.fsum(totals)
    excess = room = variance = 0.0
    probability = lru_cache(_REMEMBERED)(lambda draws: _probability(draws, totals, whole))
    for one in drawn:
        totals_of = map(sum, zip(*one, strict=True))
        pairs = zip(pairwise(zip(*one, strict=True)), pairwise(totals_of), strict=True)
        for (before, draws), (total_before, total) in pairs:
            if total_before == total:
                chance = probability(draws)
                excess += (before == draws) - chance
                room += 1 - chance
                variance += chance * (1 - chance)
    if excess <= _DEVIATIONS * math.sqrt(variance) or excess >= room * (1 - 1 / (MOST_WORKERS + 1)):
        return 1.0
    return room / (room - excess)


def _draws(mix: Mix) -> list[array[int]]:
    """Return the draws of each modality, int64 [intervals]."""
    return [array("q", map(round, column)) for column in mix.drawn().picks]


def _probability(draws: Sequence[int], totals: Sequence[float], whole: float) -> float:
    """Return the multinomial's probability of an interval's counts, by the shares of all draws."""
    logarithm = math.lgamma(sum(draws) + 1)
    for count, total in zip(draws, totals, strict=True):
        if count:
            logarithm += count * math.log(total / whole) - math.lgamma(count + 1)
    return min(1.0, math.exp(logarithm))
