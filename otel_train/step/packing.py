"""Put a step's measurements into one vector whose SUM over the ranks gives every sum, mean and maximum. Pure.

    [step, step squared modulo a prime, 1, sums ..., the first peak of rank 0, of rank 1, ..., the second peak ..., ...]

A rank fills its own place of each peak and leaves zeros in the others', so that adding the vectors up brings all
candidates together; a peak that a rank has no value for is -inf, which adding zeros does not change.

Values outside the vector are flat, in the order of a ring's record: [sums ..., peaks ..., the ranks of the peaks ...].
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from otel_train.catalogue import Layout

HEADER = 3
"""Places in front of the sums: the step, its square, and the count of ranks, which show a mismatch of steps."""
_HEADER = struct.Struct(f"={HEADER}d")
_PRIME = 2**31 - 1
_FEW = 128
"""Candidates for peaks that Python looks through itself."""


def _square(step: int) -> float:
    """Return the step's square modulo a prime: steps of the right sum but not all equal have another sum of squares."""
    return float(step * step % _PRIME)


class Reduced:
    """The cluster's values of one step.

    Args:
        step: The step.
        time_ns: Its time stamp.
        values: What `values` is to be; or what returns it, which is asked when somebody looks: on most ranks nobody
            ever does.
    """

    __slots__ = ("_read", "_values", "step", "time_ns")

    def __init__(self, step: int, time_ns: int, values: Sequence[float] | Callable[[], Sequence[float]]) -> None:
        self.step = step
        self.time_ns = time_ns
        self._read = values if callable(values) else None
        self._values: Sequence[float] = () if callable(values) else values

    @property
    def values(self) -> Sequence[float]:
        """float64 [sums + peaks + peaks]: sums, for each peak the maximum over the ranks, the lowest rank with it."""
        if self._read is not None:
            self._values, self._read = self._read(), None
        return self._values


class Packed(NamedTuple):
    """A packed vector, as Python reads it and as a collective takes it.

    Bytes are written and read in a tenth of the time that slices of a tensor take, on a processor whose caches hold the
    training step.
    """

    buffer: bytearray
    """float64 [size], the bytes of `vector`."""
    doubles: memoryview[float]
    """float64 [size], those bytes as numbers."""
    vector: torch.Tensor
    """float64 [size], on the CPU."""
    candidates: torch.Tensor
    """float64 [peaks, world size], its peaks."""


class PackingPlan:
    """The shape of the packed vector for a schema and a world size.

    Args:
        sums: Sums of the schema.
        peaks: Peaks of the schema.
        world_size: Ranks that are reduced over.
    """

    def __init__(self, sums: int, peaks: int, world_size: int) -> None:
        self.sums, self.peaks, self.world_size = sums, peaks, world_size
        self.size = HEADER + sums + world_size * peaks
        """float64 in the packed vector."""
        self._slots = HEADER + sums
        self._head = struct.Struct(f"={HEADER + sums}d")
        self._few = struct.Struct(f"={self.size}d") if world_size * peaks <= _FEW else None
        # Where the maxima of many ranks are put, and, as bytes and as a tensor, where they stand.
        self._tops = torch.empty(peaks, 1, dtype=torch.float64)
        self._equal = bytearray(max(1, world_size * peaks))
        self._is_top = torch.frombuffer(self._equal, dtype=torch.bool)[: world_size * peaks].view(peaks, world_size)
        self._empty = bytes(8 * self.size) if self._few is not None else b""

    @classmethod
    def of(cls, layout: Layout, world_size: int) -> PackingPlan:
        """Return the plan for a layout."""
        return cls(layout.sums, layout.peaks, world_size)

    def pack(self, step: int, values: Sequence[float], rank: int, out: Packed | None = None) -> Packed:
        """Return what `rank` puts into the reduction.

        Args:
            step: The step that the values belong to.
            values: float64 [sums + peaks] or longer; a peak is -inf where the rank has no candidate.
            rank: The rank within the group.
            out: One that nobody needs any more, to be filled and returned; a new one when None.

        Raises:
            struct.error: A sum is no number, or one is missing.
            TypeError: A peak is no number.
            ValueError: A peak is missing. What else it raises is the value's own `__float__`'s.
        """
        if out is None:
            buffer = bytearray(8 * self.size)
            vector = torch.frombuffer(buffer, dtype=torch.float64)
            candidates = vector[self._slots :].view(self.peaks, self.world_size)
            out = Packed(buffer, memoryview(buffer).cast("d"), vector, candidates)
        elif self._empty:
            out.buffer[:] = self._empty
        else:
            out.vector.zero_()
        self._head.pack_into(out.buffer, 0, step, _square(step), 1.0, *values[: self.sums])
        if self.peaks:
            peaks = array("d", values[self.sums : self.sums + self.peaks])
            out.doubles[self._slots + rank :: self.world_size] = peaks
        return out

    def matches(self, packed: Packed, step: int) -> bool:
        """Tell whether all ranks packed this step.

        Args:
            packed: Added up over the ranks.
            step: The step that this rank packed.
        """
        return _HEADER.unpack_from(packed.buffer) == self._header(step)

    def _header(self, step: int) -> tuple[float, ...]:
        size = self.world_size
        return float(step) * size, _square(step) * size, float(size)

    def unpack(self, packed: Packed, step: int) -> list[float] | None:
        """Return the cluster's values.

        Args:
            packed: Added up over the ranks.
            step: The step that this rank packed.

        Returns:
            float64 [sums + peaks + peaks], the last ones the lowest rank that has the maximum; None when the ranks did
            not pack the same step.
        """
        slots, few = self._slots, self._few
        flat = (self._head if few is None else few).unpack_from(packed.buffer)
        if flat[:HEADER] != self._header(step):
            return None
        # Python is done before torch has begun. But a NaN is to stay, and Python's max would lose it. (Infinities of
        # both signs are taken for one here.)
        if few is None or math.isnan(sum(flat[slots:])):
            return [*flat[HEADER:slots], *self._maxima(packed.candidates)]
        tops, ranks = [], []
        for begin in range(slots, self.size, self.world_size):
            candidates = flat[begin : begin + self.world_size]
            top = max(candidates)
            tops.append(top)
            ranks.append(float(candidates.index(top)))
        return [*flat[HEADER:slots], *tops, *ranks]

    def _maxima(self, candidates: torch.Tensor) -> list[float]:
        """Return the maxima of float64 [peaks, world size] over the ranks, then the lowest rank of each.

        A maximum alone, and a search for it among bytes, take half of the time in which torch finds both together.
        """
        torch.amax(candidates, 1, keepdim=True, out=self._tops)
        torch.eq(candidates, self._tops, out=self._is_top)
        size, begins = self.world_size, range(0, len(self._equal), self.world_size)
        ranks = [self._equal.find(1, begin, begin + size) - begin for begin in begins]
        if min(ranks) < 0:  # a NaN equals nothing
            ranks = candidates.argmax(1).tolist()
        return [*self._tops.view(-1).tolist(), *map(float, ranks)]
