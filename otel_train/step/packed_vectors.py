"""The vectors of a session's reductions: filled for a reduction, read after it, and used again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from otel_train.step.flight import Flight
from otel_train.step.key_registry import KeyRegistry
from otel_train.step.late_values import LateValue
from otel_train.step.packing import LATE_WIDTH, Packed, PackingPlan, Presence, RankSign, Reduced
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements

logger = logging.getLogger(__name__)


class _Loan:
    """A landed vector on loan to the readers of its values; it goes back to be packed anew when the last one is gone.

    Args:
        packed: The vector.
        unpack: Returns its values.
        free: Where it goes back to.
    """

    __slots__ = ("_free", "_packed", "_unpack")

    def __init__(self, packed: Packed, unpack: Callable[[], Sequence[float]], free: list[Packed]) -> None:
        self._packed, self._unpack, self._free = packed, unpack, free

    def __call__(self) -> Sequence[float]:
        return self._unpack()

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
        self._free: list[Packed] = []
        self._registry = KeyRegistry(group)
        # Where a rank of the group is not the rank of the job by that number.
        self._renamed = group.job_ranks != tuple(range(group.world_size))

    def pack(self, step: int, time_ns: int, measured: Measurements | None) -> Flight:
        """Return a flight with a step's values; without values where there are none or they can't be packed."""
        if measured is not None:
            try:
                packed = self._plan.pack(step, measured.values, self._group.rank, self._spare())
                return Flight(step, time_ns, packed, measured.device)
            except Exception as error:  # noqa: BLE001  # a value is not a number: the ranks must meet all the same
                logger.debug("telemetry: the values of step %d are not all numbers: %r", step, error)
        return self.absent(RankSign(step, Presence.ABSENT), time_ns)

    def absent(self, sign: RankSign, time_ns: int, *, extra: bool = False) -> Flight:
        """Return a flight without values."""
        packed = self._plan.pack_absent(sign, self._group.rank, self._spare())
        return Flight(sign.step, time_ns, packed, extra=extra, closes=sign.presence is not Presence.ABSENT)

    def put_late(self, flight: Flight, values: Sequence[LateValue]) -> None:
        """Put values under late keys into a flight; one whose key has no number stays out."""
        self._registry.claim([value.key for value in values])
        on_device = []
        for value in values:
            number = self._registry.number(value.key)
            if number is not None:
                self._plan.put_late(flight.packed, number, value)
                flight.logs |= value.step is not None
                if value.device is not None:
                    on_device.append((self._plan.late + 1 + LATE_WIDTH * number, value.device))
        flight.late = on_device

    def late_values(self, flight: Flight) -> tuple[list[LateValue], list[str]]:
        """Return the values under late keys of a landed flight, and the keys that ranks logged for different steps."""
        values, torn = [], []
        for slot in self._plan.late_slots(flight.packed):
            key = self._registry.key(slot.number)
            if key is not None and slot.agreed:
                values.append(LateValue(key.metric, slot.total, slot.weight, slot.step))
            elif key is not None:
                torn.append(key.metric.name)
        return values, torn

    def _spare(self) -> Packed | None:
        return self._free.pop() if self._free else None

    def reduced(self, flight: Flight, late: Sequence[LateValue] = ()) -> Reduced:
        """Return the result of a landed flight; most ranks never read it, so it is unpacked when it is read."""
        step, packed = flight.step, flight.packed
        if not self._group.emits:
            return Reduced(step, flight.time_ns, _Loan(packed, lambda: self._unpack(packed, step), self._free), late)
        values = self._unpack(packed, step)
        self._free.append(packed)
        return Reduced(step, flight.time_ns, values, late)

    def give_back(self, flight: Flight) -> None:
        """Take the vector of a landed flight whose result is thrown away."""
        self._free.append(flight.packed)

    def _unpack(self, packed: Packed, step: int) -> Sequence[float]:
        values = self._plan.unpack(packed, step) or []
        if self._renamed:
            self._plan.name_ranks(values, self._group.job_ranks)
        return values
