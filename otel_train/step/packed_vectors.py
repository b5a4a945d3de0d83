"""The vectors of a session's reductions: filled for a reduction, read after it, and used again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from otel_train.step.flight import Flight
from otel_train.step.key_registry import KeyRegistry
from otel_train.step.late_packing import LateSlot
from otel_train.step.late_values import LateValue
from otel_train.step.packing import Packed, PackingPlan, Presence, RankSign, Reduced
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements

logger = logging.getLogger(__name__)


class _Loan:
    """A landed vector on loan to the readers of its values; it goes back to be packed anew when the last one is gone.

    Args:
        packed: The vector.
        step: The step that this rank packed.
        unpack: Returns its values.
        free: Where it goes back to.
    """

    __slots__ = ("_free", "_packed", "_step", "_unpack")

    def __init__(
        self, packed: Packed, step: int, unpack: Callable[[Packed, int], Sequence[float]], free: list[Packed]
    ) -> None:
        self._packed, self._step, self._unpack, self._free = packed, step, unpack, free

    def __call__(self) -> Sequence[float]:
        return self._unpack(self._packed, self._step)

    def __del__(self) -> None:
        self._free.append(self._packed)


class PackedVectors:
    """The vectors that a rank gives to its reductions.

    Args:
        plan: The shape of the vectors.
        group: The ranks.
    """

    def __init__(self, plan: PackingPlan, group: RankGroup) -> None:
        self._plan, self._group = plan, group
        self._rank, self._emits = group.rank, group.emits
        self._free: list[Packed] = []
        self._registry = KeyRegistry(group)
        # Where a rank of the group is not the rank of the job by that number.
        self._renamed = group.job_ranks != tuple(range(group.world_size))

    def pack(self, step: int, time_ns: int, measured: Measurements | None) -> Flight:
        """Return a flight with a step's values; without values where there are none or they can't be packed."""
        if measured is not None:
            try:
                packed = self._plan.pack(step, measured.values, self._rank, self._spare())
                return Flight(step, time_ns, packed, measured.device)
            except Exception as error:  # noqa: BLE001  # a value is not a number: the ranks must meet all the same
                logger.debug("telemetry: the values of step %d are not all numbers: %r", step, error)
        return self.absent(RankSign(step, Presence.ABSENT), time_ns)

    def absent(self, sign: RankSign, time_ns: int, *, extra: bool = False) -> Flight:
        """Return a flight without values."""
        packed = self._plan.pack_absent(sign, self._rank, self._spare())
        return Flight(sign.step, time_ns, packed, extra=extra, closes=sign.presence is not Presence.ABSENT)

    def put_late(self, flight: Flight, values: Sequence[LateValue], logged: Mapping[int, Sequence[LateValue]]) -> None:
        """Put values under late keys into a flight; one whose key has no number stays out.

        Args:
            flight: The flight.
            values: Those of its step.
            logged: Those that were logged beside the steps, by lane.
        """
        self._registry.claim([value.key for of_lane in (values, *logged.values()) for value in of_lane])
        part, doubles = self._plan.late, flight.packed.doubles
        on_device = []
        for lane, value in [(None, value) for value in values] + [
            (lane, value) for lane, of_lane in logged.items() for value in of_lane
        ]:
            number = self._registry.number(value.key)
            if number is not None:
                offset = part.put(doubles, number, value) if lane is None else part.log(doubles, lane, number, value)
                if value.device is not None:
                    on_device.append((offset, value.device))
        flight.late, flight.logged = on_device, logged

    def late_values(self, flight: Flight) -> list[LateValue]:
        """Return the values under late keys of a landed flight's step."""
        return self._values(self._plan.late.slots(flight.packed.doubles), None)

    def logged_values(self, flight: Flight) -> list[tuple[int, int | None, list[LateValue]]]:
        """Return what was logged beside the steps and came with a landed flight: lane, step and values.

        The step is None where ranks put values of several into a lane: then they mean nothing.
        """
        lanes = self._plan.late.lanes(flight.packed.doubles)
        return [(lane, step, [] if step is None else self._values(slots, step)) for lane, step, slots in lanes]

    def _values(self, slots: Sequence[LateSlot], step: int | None) -> list[LateValue]:
        keys = [(self._registry.key(slot.number), slot) for slot in slots]
        return [LateValue(key.metric, slot.total, slot.weight, step) for key, slot in keys if key is not None]

    def _spare(self) -> Packed:
        if self._free:
            return self._free.pop()
        if self._group.device.type == "cpu":
            return self._plan.new()
        # A GPU takes it from pinned memory without the host, and puts the result elsewhere.
        pinned = torch.zeros(self._plan.size, dtype=torch.float64, device="cpu", pin_memory=True)
        return self._plan.over(pinned, own=True)

    def reduced(self, flight: Flight, late: Sequence[LateValue] = ()) -> Reduced:
        """Return the result of a landed flight; most ranks never read it, so it is unpacked when it is read."""
        step, packed = flight.step, flight.packed
        if flight.sent is not None:
            self.give_back(flight)
            return Reduced(step, flight.time_ns, partial(self._unpack, packed, step), late)
        if not self._emits:
            return Reduced(step, flight.time_ns, _Loan(packed, step, self._unpack, self._free), late)
        values = self._unpack(packed, step)
        self._free.append(packed)
        return Reduced(step, flight.time_ns, values, late)

    def give_back(self, flight: Flight) -> None:
        """Take the vector of a landed flight, whose result nobody reads from there."""
        self._free.append(flight.packed if flight.sent is None else flight.sent)

    def _unpack(self, packed: Packed, step: int) -> Sequence[float]:
        values = self._plan.unpack(packed, step)
        if values is None:
            return ()
        if self._renamed:
            self._plan.name_ranks(values, self._group.job_ranks)
        return values
