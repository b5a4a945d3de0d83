"""Put a step's measurements into one vector whose SUM over the ranks gives every sum, mean and maximum. Pure.

    [1, step, step squared modulo a prime, 0, sums ..., the first peak of rank 0, of rank 1, ..., the second peak ...,
    ..., rank 0's sign of presence, rank 1's, ...,
    what `LatePart` has ...]

A rank fills its own slot of each peak and leaves zeros in the others', so that adding the vectors up brings all
candidates together; a peak that a rank has no value for is -inf, which adding zeros does not change. A rank without
values for a step takes part with zeros, no candidates, and a sign of presence that says so: the others' values stay.

Values outside the vector are flat, in the order of a ring's record: [sums ..., peaks ..., the ranks of the peaks ...].
"""

from __future__ import annotations

import ctypes
import math
import struct
from array import array
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import torch

from otel_train.catalogue import ABSENT, NOTHING, Layout
from otel_train.native import core
from otel_train.step.late_packing import LatePart, square
from otel_train.step.late_values import LateValue
from otel_train.torch_modes import outside_modes

HEADER = 4
"""Numbers before the sums: how many ranks have values, their steps and the squares of these, which show a mismatch,
and how many ranks have closed their session."""
_HEADER = struct.Struct(f"={HEADER}d")
_FEW = 128
"""Candidates for peaks that Python looks through itself, without the core."""


class Presence(Enum):
    """Way in which a rank takes part in a reduction."""

    PRESENT = "with its values of the step"
    ABSENT = "without values: it could not measure the step, or did not make it"
    CLOSED = "for its closed session, without values"
    CLOSED_EARLY = "for its closed session, which has values of an interval that had not ended"


_FRACTIONS = {Presence.PRESENT: 0.0, Presence.ABSENT: 0.0, Presence.CLOSED: 0.5, Presence.CLOSED_EARLY: 0.25}


class RankSign(NamedTuple):
    """Sign of one rank: how it takes part in a reduction."""

    step: int
    """The step that it takes part for; of a closed session the last one."""
    presence: Presence

    def encode(self) -> float:
        """Return it as one number, which is not zero."""
        number = self.step + 1 + _FRACTIONS[self.presence]
        return float(number) if self.presence is Presence.PRESENT else -float(number)

    @classmethod
    def decode(cls, number: float) -> RankSign:
        """Return what `encode` made a number of."""
        whole = int(abs(number))
        if number > 0:
            return cls(whole - 1, Presence.PRESENT)
        fraction = abs(number) - whole
        return cls(whole - 1, _PRESENCES.get(fraction, Presence.ABSENT))

    @property
    def closed(self) -> bool:
        """Whether the rank's session is closed."""
        return self.presence in (Presence.CLOSED, Presence.CLOSED_EARLY)


_PRESENCES = {0.5: Presence.CLOSED, 0.25: Presence.CLOSED_EARLY}


class Reduced:
    """The cluster's values of one step.

    Args:
        step: The step.
        time_ns: Its time stamp.
        values: What `values` is to be; or what returns it, which is called when they are first read: on most ranks
            never.
        late: Values under late keys.
        logged: Whether these are all that there is: they were logged for the step beside its own values.
    """

    __slots__ = ("_read", "_values", "late", "logged", "step", "time_ns")

    def __init__(
        self,
        step: int,
        time_ns: int,
        values: Sequence[float] | Callable[[], Sequence[float]],
        late: Sequence[LateValue] = (),
        *,
        logged: bool = False,
    ) -> None:
        self.step = step
        self.time_ns = time_ns
        self.late = late
        self.logged = logged
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

    buffer: bytearray | memoryview
    """float64 [size], the bytes of `vector`."""
    doubles: memoryview[float]
    """float64 [size], those bytes as numbers."""
    vector: torch.Tensor
    """float64 [size], on the CPU."""
    candidates: torch.Tensor
    """float64 [peaks, world size], its peaks."""
    own: bool = False
    """Whether the result comes into another one: this one has the rank's own numbers only, and zeros."""


class PackingPlan:
    """The shape of the packed vector for a schema and a world size.

    Args:
        sums: Sums of the schema.
        peaks: Peaks of the schema.
        world_size: Ranks that are reduced over.
        late_keys: Late keys that have a slot.
    """

    def __init__(self, sums: int, peaks: int, world_size: int, late_keys: int = 0) -> None:
        self.sums, self.peaks, self.world_size = sums, peaks, world_size
        self.late = LatePart(HEADER + sums + world_size * (peaks + 1), late_keys)
        """The late keys' part."""
        self.size = self.late.offset + self.late.size
        """float64 in the packed vector."""
        self._core = None if core is None else core.Packing(sums, peaks, world_size, self.size)
        self.absent = (NOTHING,) * sums + (ABSENT,) * peaks
        """The values of a rank that has none."""
        self._slots = HEADER + sums
        self._signs = self._slots + world_size * peaks
        self._head = struct.Struct(f"={HEADER + sums}d")
        self._blank = array("d", bytes(8 * (sums + 2 * peaks)))

    @classmethod
    def of(cls, layout: Layout, world_size: int, late_keys: int = 0) -> PackingPlan:
        """Return the plan for a layout."""
        return cls(layout.sums, layout.peaks, world_size, late_keys)

    def pack(self, step: int, values: Sequence[float], rank: int, out: Packed | None = None) -> Packed:
        """Return what `rank`, which has values of the step, puts into the reduction.

        Args:
            step: The step that the values belong to.
            values: float64 [sums + peaks] or longer; a peak is -inf where the rank has no candidate.
            rank: The rank within the group.
            out: One that is no longer used, to be filled and returned; a new one when None.

        Raises:
            struct.error: A sum is not a number, or one is missing.
            TypeError: A peak is not a number.
            ValueError: A peak is missing. What else it raises is the value's own `__float__`'s.
        """
        out = self.new() if out is None else out
        if self._core is None or not self._core.pack(out.doubles, step, values, rank, out.own):
            self._pack(step, values, rank, out)
        return out

    def _pack(self, step: int, values: Sequence[float], rank: int, out: Packed) -> None:
        self._clear(out)
        self._head.pack_into(out.buffer, 0, 1.0, step, square(step), 0.0, *values[: self.sums])
        if self.peaks:
            peaks = array("d", values[self.sums : self.sums + self.peaks])
            out.doubles[self._slots + rank : self._signs : self.world_size] = peaks
        out.doubles[self._signs + rank] = step + 1.0

    def pack_absent(self, sign: RankSign, rank: int, out: Packed | None = None) -> Packed:
        """Return what `rank` puts into a reduction for which it has no values.

        Args:
            sign: Its sign, instead of values.
            rank: The rank within the group.
            out: As for `pack`.
        """
        out = self.new() if out is None else out
        self._clear(out)
        closed = sign.presence in (Presence.CLOSED, Presence.CLOSED_EARLY)
        self._head.pack_into(out.buffer, 0, 0.0, 0.0, 0.0, float(closed), *self.absent[: self.sums])
        out.doubles[self._slots + rank : self._signs : self.world_size] = array("d", self.absent[self.sums :])
        out.doubles[self._signs + rank] = sign.encode()
        return out

    @outside_modes
    def new(self) -> Packed:
        """Return a vector of zeros."""
        buffer = bytearray(8 * self.size)
        vector = torch.frombuffer(buffer, dtype=torch.float64)
        return Packed(buffer, memoryview(buffer).cast("d"), vector, self._candidates(vector))

    def over(self, vector: torch.Tensor, *, own: bool) -> Packed:
        """Return memory that torch has made, such as pinned memory, as a packed vector.

        Args:
            vector: float64 [size], on the CPU.
            own: As `Packed.own`.
        """
        view = memoryview((ctypes.c_char * (8 * self.size)).from_address(vector.data_ptr())).cast("B")
        return Packed(view, view.cast("d"), vector, self._candidates(vector), own)

    def _candidates(self, vector: torch.Tensor) -> torch.Tensor:
        return vector[self._slots : self._signs].view(self.peaks, self.world_size)

    @outside_modes
    def _clear(self, out: Packed) -> None:
        # What no rank has filled is still zero after the sum. Of its own vector a rank packs all else anew.
        begin = self.late.offset if out.own else 0
        end = self.size if self.late.is_filled(out.doubles) else self.late.offset
        out.vector[begin:end].zero_()

    def everybody(self, packed: Packed, step: int) -> bool:
        """Tell whether all ranks packed values of this step, and none has closed.

        Args:
            packed: Added up over the ranks.
            step: The step that this rank packed.
        """
        all_did: bool | None = None if self._core is None else self._core.everybody(packed.doubles, step)
        if all_did is not None:
            return all_did
        size = self.world_size
        return _HEADER.unpack_from(packed.buffer) == (size, float(step) * size, square(step) * size, 0.0)

    def signs(self, packed: Packed) -> list[RankSign]:
        """Return the sign of each rank in a reduction."""
        return [RankSign.decode(number) for number in packed.doubles[self._signs : self.late.offset]]

    def step_of_others(self, packed: Packed) -> int | None:
        """Return the step of those ranks that have not closed; None where they are at several, or have no values."""
        signs = [sign for sign in self.signs(packed) if not sign.closed]
        has_values = any(sign.presence is Presence.PRESENT for sign in signs)
        return signs[0].step if has_values and len({sign.step for sign in signs}) == 1 else None

    def others(self, packed: Packed, step: int) -> dict[int, RankSign]:
        """Return the signs of the ranks that have no values of a step, by rank: of a large job they are few.

        Args:
            packed: Added up over the ranks.
            step: The step.
        """
        numbers = None if self._core is None else self._core.others(packed.doubles, step)
        if numbers is None:
            present = step + 1.0
            signs = enumerate(packed.doubles[self._signs : self.late.offset])
            numbers = [(rank, number) for rank, number in signs if number != present]
        return {rank: RankSign.decode(number) for rank, number in numbers}

    def unpack(self, packed: Packed, step: int) -> array[float] | None:
        """Return the cluster's values.

        Args:
            packed: Added up over the ranks.
            step: The step that this rank packed.

        Returns:
            float64 [sums + peaks + peaks], the last ones the lowest rank that has the maximum; None when no rank packed
            values, or some of another step than this one.
        """
        out = self._blank[:]
        if self._core is not None and (has := self._core.unpack(packed.doubles, step, out)) is not None:
            return out if has else None
        return self._unpack(packed, step)

    def _unpack(self, packed: Packed, step: int) -> array[float] | None:
        count, steps, squares, _, *sums = self._head.unpack_from(packed.buffer)
        if not count or steps != step * count or squares != square(step) * count:
            return None
        begins = range(self._slots, self._signs, self.world_size)
        if len(begins) * self.world_size > _FEW:
            ranks = _search(packed.candidates)
        else:
            ranks = [_top_rank(packed.doubles[begin : begin + self.world_size].tolist()) for begin in begins]
        tops = [packed.doubles[begin + rank] for begin, rank in zip(begins, ranks, strict=True)]
        return array("d", [*sums, *tops, *ranks])

    def name_ranks(self, values: array[float], ranks: Sequence[int]) -> None:
        """Replace the ranks of the peaks in what `unpack` returned by these, where a group's are not the job's."""
        if self.peaks:
            values[-self.peaks :] = array("d", [float(ranks[int(rank)]) for rank in values[-self.peaks :]])


def _top_rank(candidates: Sequence[float]) -> int:
    """Return the lowest rank that has the maximum; of candidates with a NaN, the lowest that has one."""
    if math.isnan(sum(candidates)):  # or there are infinities of both signs
        nans = [rank for rank, candidate in enumerate(candidates) if math.isnan(candidate)]
        if nans:
            return nans[0]
    return candidates.index(max(candidates))


@outside_modes
def _search(candidates: torch.Tensor) -> list[int]:
    """Return what `_top_rank` would for each row of float64 [peaks, world size], of many ranks.

    A maximum alone, and a search for it among bytes, take half of the time in which torch finds both together.
    """
    size, marks = candidates.shape[1], bytearray(candidates.numel())
    equal = torch.frombuffer(marks, dtype=torch.bool).view(candidates.shape)
    torch.eq(candidates, torch.amax(candidates, 1, keepdim=True), out=equal)
    ranks = [marks.find(1, begin, begin + size) - begin for begin in range(0, len(marks), size)]
    if min(ranks) < 0:  # a NaN equals nothing
        return [_top_rank(row) for row in candidates.tolist()]
    return ranks
