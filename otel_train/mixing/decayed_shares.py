"""The decayed counts of picks by modality beside those that the target shares would give: what a mix diverges by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any


class DecayedShares:
    """Picks and targets of each modality, in which a pick's part decays with the picks after it.

    All totals are numbers of picks since the meter was made or loaded.

    Args:
        modalities: Number of modalities.
        horizon: Picks after which a pick's part has decayed to 1/e.
    """

    def __init__(self, modalities: int, horizon: float) -> None:
        self.horizon = horizon
        """Picks after which a pick's part has decayed to 1/e."""
        self.counts = [0.0] * modalities
        """Decayed picks of each modality, at the last drain."""
        self.targets = [0.0] * modalities
        """Decayed target shares of the same picks."""
        self.new_counts = [0.0] * modalities
        """Picks of the interval by modality: the meter adds to this list, which stays the same object."""
        self.shares = [0.0] * modalities
        """Target shares that are in force."""
        self._indices = range(modalities)
        self._early_targets: list[float] | None = None
        """Targets of the interval's picks under shares that have changed since."""
        self._total_weighed = 0.0
        """Total at the last change of the shares, or at the last drain where that came later."""

    def set_shares(self, shares: list[float], total: float) -> None:
        """Use these target shares for the picks after the first `total`."""
        if total > self._total_weighed:
            self._early_targets = self._new_targets(total)
        self._total_weighed = total
        self.shares = shares

    def drain(self, picks: float, total: float) -> None:
        """Decay what was counted before by the interval's `picks`, and add those."""
        keep = exp(-picks / self.horizon)
        since = total - self._total_weighed
        counts, targets, new_counts, shares = self.counts, self.targets, self.new_counts, self.shares
        for index in self._indices:  # enumerate or zip would take half as long again
            counts[index] = counts[index] * keep + new_counts[index]
            targets[index] = targets[index] * keep + since * shares[index]
            new_counts[index] = 0
        if self._early_targets is not None:
            self.targets = [target + early for target, early in zip(targets, self._early_targets, strict=True)]
            self._early_targets = None
        self._total_weighed = total

    def _new_targets(self, total: float) -> list[float]:
        """Return the target shares added up over the interval's picks, each at those in force at the pick."""
        since = total - self._total_weighed
        early = self._early_targets or [0.0] * len(self.shares)
        return [before + since * share for before, share in zip(early, self.shares, strict=True)]

    def interval_state(self, total: float) -> dict[str, Any]:
        """Return the picks and the targets of the interval."""
        return {"new_counts": list(self.new_counts), "new_targets": self._new_targets(total)}

    def load(self, counts: Sequence[float], targets: Sequence[float], interval: Mapping[str, Any]) -> None:
        """Go on from saved counts and targets, with the total at 0 and the present shares."""
        self.counts, self.targets = list(counts), list(targets)
        self.new_counts[:] = interval["new_counts"]
        self._early_targets = list(interval["new_targets"])
        self._total_weighed = 0.0
