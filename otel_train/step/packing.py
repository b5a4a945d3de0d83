"""Put a step's measurements into one vector whose SUM over the ranks gives every sum, mean and maximum. Pure.

    [step, step squared modulo a prime, 1, sums ..., rank 0's peaks ..., rank 1's peaks ..., ...]

A rank fills its own slot of peaks and leaves zeros in the others', so that adding the vectors up brings all candidates
together; a peak that a rank has no value for is -inf, which adding zeros does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from otel_train.catalogue import Layout

HEADER = 3
"""Places in front of the sums: the step, its square, and the count of ranks, which show a mismatch of steps."""
_PRIME = 2**31 - 1


def _square(step: int) -> float:
    """Return the step's square modulo a prime: steps of the right sum but not all equal have another sum of squares."""
    return float(step * step % _PRIME)


class Reduced(NamedTuple):
    """The cluster's values of one step."""

    step: int
    time_ns: int
    """The step's time stamp, nanoseconds since the epoch."""
    values: Sequence[float]
    """float64 [layout.sums + 2 * layout.peaks]: sums, maxima, and for each maximum the lowest rank that has it."""


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """The shape of the packed vector for a schema and a world size."""

    sums: int
    peaks: int
    world_size: int

    @classmethod
    def of(cls, layout: Layout, world_size: int) -> PackingPlan:
        """Return the plan for a layout."""
        return cls(layout.sums, layout.peaks, world_size)

    @property
    def size(self) -> int:
        """float64 in the packed vector."""
        return HEADER + self.sums + self.world_size * self.peaks

    def pack(self, step: int, values: Sequence[float], rank: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the vector that `rank` puts into the reduction.

        Args:
            step: The step that the values belong to.
            values: float64, the sums [sums], then the peaks [peaks]: -inf where the rank has no candidate.
            rank: The rank within the group.
            out: A vector of zeros to fill, float64 [size] on the CPU; made when None.

        Returns:
            float64 [size], on the CPU.
        """
        vector = torch.zeros(self.size, dtype=torch.float64) if out is None else out
        head = [step, _square(step), 1.0, *values[: self.sums]]
        vector[: HEADER + self.sums] = torch.tensor(head, dtype=torch.float64)
        if self.peaks:
            start = HEADER + self.sums + rank * self.peaks
            own = values[self.sums : self.sums + self.peaks]
            vector[start : start + self.peaks] = torch.tensor(own, dtype=torch.float64)
        return vector

    def unpack(self, vector: torch.Tensor, step: int) -> list[float] | None:
        """Read the reduced vector.

        Args:
            vector: float64 [size], on the CPU, added up over the ranks.
            step: The step that this rank packed.

        Returns:
            The cluster's values as `Reduced` has them, but with the ranks within the group; None when the ranks did not
            pack the same step.
        """
        head = vector[: HEADER + self.sums].tolist()
        if head[:HEADER] != [part * self.world_size for part in (float(step), _square(step), 1.0)]:
            return None
        peaks: list[float] = []
        ranks: list[float] = []
        if self.peaks:
            best = vector[HEADER + self.sums :].view(self.world_size, self.peaks).max(dim=0)
            peaks, ranks = best.values.tolist(), best.indices.to(torch.float64).tolist()
        return [*head[HEADER:], *peaks, *ranks]
