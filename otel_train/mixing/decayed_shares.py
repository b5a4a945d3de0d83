"""The decayed counts of picks by modality beside those that the target shares would give: what a mix diverges by."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from otel_train.native.arrays import overwrite


class DecayedShares:
    """Picks and targets of each modality, in which a pick's part decays with the picks after it.

    Its arrays stay the same objects: a pick writes them at once.

    Args:
        modalities: Number of modalities.
        horizon: Picks after which a pick's part has decayed to 1/e.
    """

    def __init__(self, modalities: int, horizon: float) -> None:
        self.horizon = horizon
        """Picks after which a pick's part has decayed to 1/e."""
        zeros = bytes(8 * modalities)
        self.counts = array("d", zeros)
        """Decayed picks of each modality, at the last drain."""
        self.targets = array("d", zeros)
        """Decayed target shares of the same picks."""
        self.new_counts = array("d", zeros)
        """Picks of the interval by modality: the meter adds to it."""
        self.shares = array("d", zeros)
        """Target shares that are in force."""
        self.early_targets = array("d", zeros)
        """Targets of the interval's picks under shares that have changed since."""
        self._indices = range(modalities)

    def set_shares(self, shares: list[float], since: float) -> None:
        """Use these target shares from now on, after `since` picks at those that are in force."""
        overwrite(self.early_targets, self._new_targets(since))
        overwrite(self.shares, shares)

    def drain(self, picks: float, since: float) -> None:
        """Decay what was counted before by the interval's `picks`, and add those, `since` of them at these shares."""
        keep = exp(-picks / self.horizon)
        counts, targets, new_counts, shares, early = (
            self.counts,
            self.targets,
            self.new_counts,
            self.shares,
            self.early_targets,
        )
        for index in self._indices:  # enumerate or zip would take half as long again
            counts[index] = counts[index] * keep + new_counts[index]
            targets[index] = targets[index] * keep + since * shares[index] + early[index]
            new_counts[index] = early[index] = 0.0

    def _new_targets(self, since: float) -> list[float]:
        """Return the target shares added up over the interval's picks, each at those in force at the pick."""
        return [before + since * share for before, share in zip(self.early_targets, self.shares, strict=True)]

    def interval_state(self, since: float) -> dict[str, Any]:
        """Return the picks and the targets of the interval, of which `since` picks are at the present shares."""
        return {"new_counts": self.new_counts.tolist(), "new_targets": self._new_targets(since)}

    def load(self, counts: Sequence[float], targets: Sequence[float], interval: Mapping[str, Any]) -> None:
        """Go on from saved counts and targets, with the present shares."""
        overwrite(self.counts, counts)
        overwrite(self.targets, targets)
        overwrite(self.new_counts, interval["new_counts"])
        overwrite(self.early_targets, interval["new_targets"])
