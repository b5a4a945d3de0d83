"""Points that tell how wrong the clock of a ring's rank is: with the other live points, or apart where it is wrong.

Points of a clock that is wrong have wrong times, with which they would be refused, or seen too late. So these alone
have the time of the reference. What is sent of a record is a function of the record: its time stays the rank's.
"""

from __future__ import annotations

import time

from otel_train.catalogue import rows
from otel_train.host_clock import LIMIT, ClockOffset, ClockReading, Reference
from otel_train.ring import RingReader
from otel_train.sidecar.points import Origin, PointBuilder

APART_NS = 10**6
"""Least time between two times of a series: stores count in milliseconds."""
MOST_SET = 1.0
"""Seconds by which the wall clock may be set after the ranks' comparison, so that this one holds: a leap second."""
HOLDS = 6 * 3600.0
"""Seconds after the ranks' comparison in which a clock that it has shown to be wrong is told of: others may be set."""


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
        self._compared = ClockReading.of_facts(reader.facts)
        """The clocks when the ranks compared theirs; a sidecar that is started again has them, too."""
        self.receiver: ClockOffset | None = None
        """The one against the receiver's clock; None where another ring of this machine has it, or nobody."""
        self.elsewhere: ClockOffset | None = None
        """The same where the receiver is on another machine, whose clock can tell that this one is right."""
        self._due = 0.0
        self._newest: dict[Reference, int] = {}

    def offsets(self) -> dict[Reference, ClockOffset]:
        """Return the offsets of now, without one that is out of date."""
        offsets = {}
        if (ranks := self._against_ranks()) is not None:
            offsets[Reference.RANKS] = ranks
        if self.receiver is not None:
            offsets[Reference.RECEIVER] = self.receiver
        return offsets

    def _against_ranks(self) -> ClockOffset | None:
        """Return the offset against the other ranks; None where what they have compared no longer shows one.

        Of a clock that is set later, all that is seen here is that it was. One that was wrong by as much is right now.
        Else the other ranks' may have been set with it, as after a suspend: a receiver's date tells that, nothing else.
        """
        if self._agreed is None or self._compared is None:
            return None
        now = ClockReading.now()
        moved = now.set_since(self._compared)
        offset = self._agreed._replace(seconds=self._agreed.seconds + moved)
        if abs(moved) > MOST_SET:
            return offset if self._agreed.wrong and not offset.wrong else None
        if offset.wrong and (now.boot - self._compared.boot > HOLDS or self._is_right_elsewhere):
            return None
        return offset

    @property
    def _is_right_elsewhere(self) -> bool:
        other = self.elsewhere
        return other is not None and abs(other.seconds) + other.uncertainty <= LIMIT

    def add_to(self, builder: PointBuilder, now_ns: int) -> None:
        """Add those that are right, at the present time, to other live points."""
        for reference, offset in self.offsets().items():
            if not offset.wrong:
                builder.add_pipeline(rows.CLOCK_OFFSET, self._after(reference, now_ns), offset.certain, reference)

    def apart(self) -> PointBuilder | None:
        """Return those that are wrong, once an interval; None without any."""
        wrong = [(reference, offset) for reference, offset in self.offsets().items() if offset.wrong]
        if not wrong or time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._interval
        builder = PointBuilder(self._origin, live=True)
        for reference, offset in wrong:
            true_ns = time.time_ns() - int(offset.seconds * 1e9)
            builder.add_pipeline(rows.CLOCK_OFFSET, self._after(reference, true_ns), offset.certain, reference)
        return builder

    def _after(self, reference: Reference, time_ns: int) -> int:
        """Return a time after the series' last one."""
        self._newest[reference] = time_ns = max(time_ns, self._newest.get(reference, 0) + APART_NS)
        return time_ns
