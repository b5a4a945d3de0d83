"""Tell a reader that is starved from one that its weight explains: by how improbable its run of misses is."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from otel_train.mixing.reader_slots import EMPTY
from otel_train.native.arrays import overwrite

STARVED_SURPRISE = -math.log(1e-6)
"""A reader is starved when not being picked for so long has a probability under 1e-6."""


class Starvation:
    """Surprise, for each slot of a meter, that its reader was not picked for so long.

    Its arrays stay the same objects: a pick writes them at once.

    Args:
        slots: Number of slots.
    """

    def __init__(self, slots: int) -> None:
        zeros = bytes(8 * slots)
        self.total_picked = array("d", zeros)
        """The number of draws at each slot's last one, or at the last call of `expect`: the meter writes it."""
        self.surprise = array("d", zeros)
        """For each slot -log of the probability of the run of misses it was in at the last call of `expect`."""
        self.miss_surprise = array("d", zeros)
        """Surprise that one more miss adds."""
        self.total_expected = 0.0
        """The number of draws at the last call of `expect`."""

    def surprises(self, total: float) -> list[float]:
        """Return -log of the probability of the run of misses that each slot's reader is in, after `total` picks."""
        return [self._surprise_of(slot, total) for slot in range(len(self.surprise))]

    def _surprise_of(self, slot: int, total: float) -> float:
        picked = self.total_picked[slot]
        before = self.surprise[slot] if picked == self.total_expected else 0.0
        misses = total - picked
        return before + misses * self.miss_surprise[slot] if misses else before

    def expect(self, total: float, shares: Sequence[float], modality_index: Sequence[int]) -> None:
        """Derive how surprising one miss is for each reader: its modality's share, in equal parts to its readers.

        Args:
            total: Picks so far.
            shares: The target share of each modality.
            modality_index: The modality of each slot, `EMPTY` for none.
        """
        overwrite(self.surprise, self.surprises(total))
        overwrite(self.total_picked, [total] * len(self.surprise))
        self.total_expected = total
        readers = [modality_index.count(index) for index in range(len(shares))]
        reachable = math.fsum(share for share, count in zip(shares, readers, strict=True) if count)
        for slot, modality in enumerate(modality_index):
            if modality == EMPTY or not reachable:
                self.miss_surprise[slot] = 0.0
                continue
            chance = shares[modality] / reachable / readers[modality]
            self.miss_surprise[slot] = -math.log1p(-chance) if chance < 1 else math.inf

    def count(self, total: float, modality_index: Sequence[int]) -> tuple[float, float]:
        """Return how many readers are starved, and how many draws there are before the next could be.

        A pick only puts that off: until then nobody need look.
        """
        starved = 0.0
        earliest = math.inf
        for slot, modality in enumerate(modality_index):
            if modality == EMPTY:
                continue
            surprise, one_more = self._surprise_of(slot, total), self.miss_surprise[slot]
            if surprise > STARVED_SURPRISE:
                starved += 1
            elif one_more:
                earliest = min(earliest, total + (STARVED_SURPRISE - surprise) / one_more)
        return starved, -math.inf if starved else earliest
