"""Points that tell how wrong the clock of a ring's rank is: with the other live points, or apart where it is wrong.

Points of a clock that is wrong have wrong times, with which they would be refused, or seen too late. So these alone
have the time of the reference. What is sent of a record is a function of the record: its time stays the rank's.
"""

from __future__ import annotations

import time

from otel_train.catalogue import rows
from otel_train.host_clock import ClockOffset, Reference
from otel_train.ring import RingReader
from otel_train.sidecar.points import Origin, PointBuilder

APART_NS = 10**6
"""Least time between two times of a series: stores count in milliseconds."""


class ClockPoints:
    """The offsets of one rank's clock.

    Args:
        reader: The ring.
        origin: Resource and series of its points.
        interval: Seconds between two exports of them, where they are sent apart.
    """

    def __init__(self, reader: RingReader, origin: Origin, *, interval: float) -> None:
        self._origin = origin
        self._interval = interval
        self._agreed = ClockOffset.of_facts(reader.facts)
        self._set_ns = time.time_ns() - time.monotonic_ns()
        """The wall clock's time when the steady one began, which changes when it is set."""
        self.receiver: ClockOffset | None = None
        """The one against the receiver's clock; None where another ring of this machine has it, or nobody."""
        self._due = 0.0
        self._newest: dict[Reference, int] = {}

    def offsets(self) -> dict[Reference, ClockOffset]:
        """Return the offsets of now: the other ranks' clocks are taken to go on as they were."""
        offsets = {}
        if self._agreed is not None:
            moved = (time.time_ns() - time.monotonic_ns() - self._set_ns) / 1e9
            offsets[Reference.RANKS] = self._agreed._replace(seconds=self._agreed.seconds + moved)
        if self.receiver is not None:
            offsets[Reference.RECEIVER] = self.receiver
        return offsets

    def add_to(self, builder: PointBuilder, now_ns: int) -> None:
        """Add those that are right, at the present time, to other live points."""
        for reference, offset in self.offsets().items():
            if not offset.wrong:
                builder.add_pipeline(rows.CLOCK_OFFSET, self._after(reference, now_ns), offset.seconds, reference)

    def apart(self) -> PointBuilder | None:
        """Return those that are wrong, once an interval; None without any."""
        wrong = [(reference, offset) for reference, offset in self.offsets().items() if offset.wrong]
        if not wrong or time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._interval
        builder = PointBuilder(self._origin, live=True)
        for reference, offset in wrong:
            true_ns = time.time_ns() - int(offset.seconds * 1e9)
            builder.add_pipeline(rows.CLOCK_OFFSET, self._after(reference, true_ns), offset.seconds, reference)
        return builder

    def _after(self, reference: Reference, time_ns: int) -> int:
        """Return a time after the series' last one."""
        self._newest[reference] = time_ns = max(time_ns, self._newest.get(reference, 0) + APART_NS)
        return time_ns
