"""Bring values that came late, or were logged beside the steps, over the ranks: in reductions, and at the end."""

from __future__ import annotations

from collections.abc import Sequence

from otel_train.step.clock import LOG_APART_NS
from otel_train.step.flight import Flight
from otel_train.step.last_logs import LastLogs
from otel_train.step.late_values import LateValue
from otel_train.step.logged_values import LoggedValues
from otel_train.step.packed_vectors import PackedVectors
from otel_train.step.packing import Reduced
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction_warnings import ReductionWarnings

_LEAST = 0.1
"""Seconds that the store is given at the end, where the reductions have taken all the time that there was."""


class LateTransport:
    """Late values of one rank on their way to the cluster's.

    Args:
        vectors: The session's.
        group: The ranks.
        warnings: The session's.
        max_in_flight: Reductions under way at once.
    """

    def __init__(
        self, vectors: PackedVectors, group: RankGroup, warnings: ReductionWarnings, *, max_in_flight: int
    ) -> None:
        self._vectors, self._warnings = vectors, warnings
        self._logged = LoggedValues(max_in_flight)
        self._last = LastLogs(group)
        self._any = False
        """Whether this rank has logged something, or seen that another one has."""

    @property
    def waiting(self) -> bool:
        """Whether values that were logged beside the steps wait for a reduction."""
        return bool(self._logged)

    def log(self, values: Sequence[LateValue]) -> None:
        """Give values that were logged beside the steps to the next reductions."""
        self._any = True
        self._logged.add(values)

    def put(self, flight: Flight, measured: Measurements | None, number: int) -> None:
        """Put late values into a flight.

        Args:
            flight: The flight.
            measured: What it has of its step, if anything.
            number: How many were launched before it.
        """
        late = () if measured is None else measured.late
        if late or self._logged:
            self._vectors.put_late(flight, late, self._logged.take(number))

    def land(self, flight: Flight, landed_ns: int) -> tuple[list[Reduced], Sequence[LateValue]]:
        """Return what came with a landed flight that has late values: rows that were logged beside the steps, and
        values of its step.

        Args:
            flight: The flight; the rows came with it, whichever step the ranks took part for.
            landed_ns: The newest time stamp of what landed before.
        """
        agreed: dict[int, Sequence[LateValue]] = {}
        for lane, step, values in self._vectors.logged_values(flight):
            if step is not None:
                self._logged.arrived(flight.number, lane)
                agreed[step] = values
            else:
                self._logged.give_back(flight.number, lane)
        self._any |= bool(agreed)
        rows = []
        for after, step in zip(range(len(agreed), 0, -1), sorted(agreed), strict=True):
            # A millisecond before the step's, where that is after what landed last: stores that count in milliseconds
            # keep one value in each.
            landed_ns = min(max(landed_ns + 1, flight.time_ns - after * LOG_APART_NS), flight.time_ns - after)
            rows.append(Reduced(step, landed_ns, (), agreed[step], logged=True))
        return rows, self._vectors.late_values(flight)

    def leave(self, timeout: float) -> None:
        """Leave what no reduction has taken for the rank that emits; called when the session is closed.

        Args:
            timeout: Seconds that it takes at most, or `_LEAST`.
        """
        values = self._logged.take_all()
        failure = self._last.give(values, max(timeout, _LEAST))
        if failure and values:
            self._warnings.lost_logs(failure)

    def collect(self, begin_ns: int, timeout: float, *, waits: bool) -> list[Reduced]:
        """Return what the ranks have left, as rows.

        Args:
            begin_ns: The newest time stamp of what landed before.
            timeout: Seconds that it takes at most, or `_LEAST`.
            waits: Whether ranks that have not closed yet are waited for.
        """
        left, failure = self._last.take(max(timeout, _LEAST), waits=waits)
        if failure and self._any:
            self._warnings.lost_logs(failure)
        by_step: dict[int, list[LateValue]] = {}
        for value in left:
            if value.step is not None:
                by_step.setdefault(value.step, []).append(value)
        return [
            Reduced(step, begin_ns + number * LOG_APART_NS, (), by_step[step], logged=True)
            for number, step in enumerate(sorted(by_step), start=1)
        ]
