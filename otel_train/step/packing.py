"""Put a step's measurements into one vector whose SUM over the ranks gives every sum, mean and maximum. Pure.

    [step, step squared modulo a prime, 1, sums ..., rank 0's peaks ..., rank 1's peaks ..., ...]

A rank fills its own slot of peaks and leaves zeros in the others', so that adding the vectors up brings all candidates
together; a peak that a rank has no value for is -inf, which adding zeros does not change.

Values outside the vector are flat, in the order of a ring's record: [sums ..., peaks ..., the ranks of the peaks ...].
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from otel_train.catalogue import Layout

HEADER = 3
"""Places in front of the sums: the step, its square, and the count of ranks, which show a mismatch of steps."""
_PRIME = 2**31 - 1
_FEW = 128
"""Candidates for peaks up to which Python is done before torch has begun."""


def _square(step: int) -> float:
    """Return the step's square modulo a prime: steps of the right sum but not all equal have another sum of squares."""
    return float(step * step % _PRIME)


class Reduced:
    """The cluster's values of one step.

    Args:
        step: The step.
        time_ns: Its time stamp.
        values: float64 [sums + peaks + peaks]: the sums, the maximum over the ranks for each peak, and the lowest rank
            that has it; or what returns them, which is called when somebody looks: on most ranks nobody ever does.
    """

    __slots__ = ("_read", "_values", "step", "time_ns")

    def __init__(self, step: int, time_ns: int, values: Sequence[float] | Callable[[], Sequence[float]]) -> None:
        self.step = step
        self.time_ns = time_ns
        self._values: Sequence[float] = ()
        self._read: Callable[[], Sequence[float]] | None = None
        if callable(values):
            self._read = values
        else:
            self._values = values

    @property
    def values(self) -> Sequence[float]:
        """float64 [sums + peaks + peaks]."""
        if self._read is not None:
            self._values, self._read = self._read(), None
        return self._values


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

    def pack(self, step: int, values: Sequence[float], rank: int) -> torch.Tensor:
        """Return the vector that `rank` puts into the reduction.

        Args:
            step: The step that the values belong to.
            values: float64 [sums + peaks] or longer; a peak is -inf where the rank has no candidate.
            rank: The rank within the group.

        Returns:
            float64 [size], on the CPU.

        Raises:
            struct.error: A value is no number, or one is missing; what else it raises is the value's own `__float__`'s.
        """
        slot = HEADER + self.sums + rank * self.peaks
        # Through `struct`, which is as fast as copying: a tensor made of a list takes longer than the rest of a launch.
        buffer = bytearray(8 * self.size)
        struct.pack_into(f"={HEADER + self.sums}d", buffer, 0, step, _square(step), 1.0, *values[: self.sums])
        struct.pack_into(f"={self.peaks}d", buffer, 8 * slot, *values[self.sums : self.sums + self.peaks])
        return torch.frombuffer(buffer, dtype=torch.float64)

    def matches(self, vector: torch.Tensor, step: int) -> bool:
        """Tell whether all ranks packed this step.

        Args:
            vector: float64 [size], on the CPU, added up over the ranks.
            step: The step that this rank packed.
        """
        header = vector[:HEADER].tolist()
        return bool(header == [part * self.world_size for part in (float(step), _square(step), 1.0)])

    def read(self, vector: torch.Tensor) -> list[float]:
        """Return the cluster's values out of a reduced vector, whose step matches.

        Args:
            vector: float64 [size], on the CPU, added up over the ranks.

        Returns:
            float64 [sums + peaks + peaks]; the last ones are the lowest rank that has the maximum.
        """
        end = HEADER + self.sums
        if self.world_size * self.peaks <= _FEW:
            head: list[float] = vector.tolist()
            candidates = head[end:]
            del head[end:]
            # A NaN is to stay, and Python's max would lose it. (Infinities of both signs are taken for one here.)
            if not math.isnan(sum(candidates)):
                columns = [candidates[place :: self.peaks] for place in range(self.peaks)]
                best = [max(column) for column in columns]
                ranks = [float(column.index(peak)) for column, peak in zip(columns, best, strict=True)]
                return head[HEADER:] + best + ranks
        else:
            head = vector[:end].tolist()
        found = vector[end:].view(self.world_size, self.peaks).max(dim=0)
        return [*head[HEADER:], *found.values.tolist(), *map(float, found.indices.tolist())]

    def unpack(self, vector: torch.Tensor, step: int) -> list[float] | None:
        """Return what `read` does, or None when the ranks did not pack the same step."""
        return self.read(vector) if self.matches(vector, step) else None
