"""Choose a reader: a pure function of seed, rank, pick index and weights, the same on every machine and Python."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from otel_train.splitmix import INCREMENT, mix


def uniform(seed: int, rank: int, index: int) -> float:
    """Return the number in [0, 1) that belongs to pick `index` of `rank`.

    The numbers of one rank are SplitMix64's sequence from a start that seed and rank decide, so any of them can be
    had without the ones before it: a worker process or a resumed job needs no generator state.
    """
    start = mix(mix(seed) + (rank + 1) * INCREMENT)
    return float(mix(start + (index + 1) * INCREMENT) >> 11) * 2.0**-53


def reader_weights(
    modality_for_reader: Sequence[str | None], weights: dict[str, float], bias: Sequence[float]
) -> list[float]:
    """Spread the modalities' weights over their readers.

    Args:
        modality_for_reader: The modality of each slot, None for an empty one.
        weights: The weight of each modality.
        bias: A factor for each slot; readers of one modality share its weight in proportion to it.

    Returns:
        One weight for each slot; 0 for an empty one. A modality without a reader gives its weight to nobody.
    """
    totals: dict[str, float] = {}
    for modality, factor in zip(modality_for_reader, bias, strict=True):
        if modality is not None:
            totals[modality] = totals.get(modality, 0.0) + factor
    return [
        0.0 if modality is None or not totals[modality] else weights.get(modality, 0.0) * factor / totals[modality]
        for modality, factor in zip(modality_for_reader, bias, strict=True)
    ]


class ReaderChoice:
    """The choice among one set of readers: their cumulated weights, made once and used for many picks.

    Args:
        weights: A non-negative weight for each slot.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._cumulative = list(accumulate(weights))
        self._last = max((slot for slot, weight in enumerate(weights) if weight > 0), default=-1)

    @property
    def possible(self) -> bool:
        """Whether any slot can be chosen."""
        return self._last >= 0

    def slot(self, position: float) -> int:
        """Return the slot at `position` in [0, 1) of the cumulated weights; rounding never gives one of weight 0."""
        return min(bisect_right(self._cumulative, position * self._cumulative[-1]), self._last)
