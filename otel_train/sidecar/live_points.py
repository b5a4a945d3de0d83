"""Points that describe the sending itself, at the present: they tell of a rank that hangs and writes no records."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from otel_train.catalogue import rows
from otel_train.refusals import Refusal
from otel_train.ring import Cursor, End, RingReader
from otel_train.sidecar.exit_codes import exit_code
from otel_train.sidecar.points import Origin, PointBuilder
from otel_train.sidecar.settings import settings_of

MIN_INTERVAL_NS = 10**9
"""Least time between two times that a rank's age is sent."""
LIVE_STEP_NS = 10**6
"""Least time between two times of live points: stores count in milliseconds."""
SETTINGS_NS = 240 * 10**9
"""Time after which settings are sent again: stores look five minutes back, and a receiver may be a new one."""

EXIT_SECONDS = 10.0
"""Seconds that a process whose interpreter ends may take to exit: the libraries that it has loaded end too."""


class SendingCounts(NamedTuple):
    """Counts that live points carry."""

    dropped: int
    """Records that were overwritten or torn before they were sent."""
    refused: tuple[tuple[str, int], ...]
    """Points that the receiver refused for good, by reason."""
    abandoned: int
    """Reductions that the rank has thrown away."""
    restarts: int
    """Times that the sidecar was started again."""
    exit_code: int | None
    """How the rank's session has ended; None where it goes on."""


class LivePoints:
    """The live points of one ring.

    Args:
        reader: The ring.
        origin: Resource and series of its points.
        interval_ns: Time between two exports of the rank's own values.
        restarts: How often the sidecar was started again.
    """

    def __init__(self, reader: RingReader, origin: Origin, *, interval_ns: int, restarts: int) -> None:
        self._reader = reader
        self._origin = origin
        self._interval_ns = max(interval_ns, MIN_INTERVAL_NS)
        self._restarts = restarts
        self._made_ns = 0
        """Wall clock time at which points were made last."""
        self._newest_ns = 0
        """Newest time of the points."""
        self._exiting_since = math.inf
        """Time since which its process is at its end."""
        self._settings_ns = 0
        """Time of the settings that the receiver has."""
        self._taken_ns = 0
        """Newest time of those that the receiver has."""
        self._acknowledged: SendingCounts | None = None
        self._begun = {Refusal.REJECTED, *reader.refused}
        """Reasons whose counts the receiver has had, 0 at least; that of `REJECTED` begins with the first points."""

    def counts(self, cursor: Cursor, refused: Mapping[str, int], *, ended: bool) -> SendingCounts:
        """Return the counts at a cursor, of a rank that has ended or not."""
        progress = self._reader.progress
        code = exit_code(progress.end, self._reader.error) if ended and not self.is_exiting else None
        reasons = {Refusal.REJECTED: 0, **refused}
        return SendingCounts(cursor.dropped, tuple(sorted(reasons.items())), progress.abandoned, self._restarts, code)

    @property
    def is_exiting(self) -> bool:
        """Whether the process is at its end and still to exit, with a code that is not known yet; not for long."""
        reader = self._reader
        if reader.progress.end is not End.PROCESS or reader.error or not reader.writer_lives:
            return False
        self._exiting_since = min(self._exiting_since, time.monotonic())
        return time.monotonic() - self._exiting_since < EXIT_SECONDS

    def are_due(self, counts: SendingCounts, cursor: Cursor, now_ns: int, *, ended: bool) -> bool:
        """Tell whether it is time for points: once an interval, and after the last record where counts have changed."""
        if ended:
            return counts != self._acknowledged and cursor.position >= self._reader.progress.written
        return abs(now_ns - self._made_ns) >= self._interval_ns

    def make(self, counts: SendingCounts, now_ns: int, *, ended: bool, oldest_ns: int | None = None) -> PointBuilder:
        """Return the points.

        Args:
            counts: Their counts.
            now_ns: The present time.
            ended: Whether the rank has ended: an ended rank has no age.
            oldest_ns: Time of the oldest record that is sent with them.
        """
        self._made_ns = now_ns
        # A clock that was set back must not take the points with it: many stores refuse what is older than the last.
        begin = [reason for reason, _ in counts.refused if reason not in self._begun]
        self._newest_ns = now_ns = max(now_ns, self._newest_ns + (2 if begin else 1) * LIVE_STEP_NS)
        builder = PointBuilder(self._origin, live=True)
        phase, _ = self._reader.phase
        since = self._reader.progress.time_ns or self._reader.header.created_ns
        if phase is not None and not ended:
            builder.add_pipeline(rows.STEP_AGE, now_ns, max(0.0, (now_ns - since) / 1e9), phase.name.lower())
        builder.add_pipeline(rows.RECORDS_DROPPED, now_ns, counts.dropped)
        for reason in begin:  # a series that began with its first count would not have grown by it
            builder.add_pipeline(rows.POINTS_REFUSED, now_ns - LIVE_STEP_NS, 0, reason)
        for reason, count in counts.refused:
            builder.add_pipeline(rows.POINTS_REFUSED, now_ns, count, reason)
        self._begun.update(begin)
        builder.add_pipeline(rows.REDUCTIONS_ABANDONED, now_ns, counts.abandoned)
        builder.add_pipeline(rows.SIDECAR_RESTARTS, now_ns, counts.restarts)
        if counts.exit_code is not None:
            builder.add_pipeline(rows.SESSION_FAILED, now_ns, counts.exit_code)
        lag_ns = 0 if oldest_ns is None else now_ns - oldest_ns
        builder.add_pipeline(rows.EXPORT_LAG, now_ns, max(0.0, lag_ns / 1e9))
        if now_ns - self._settings_ns >= SETTINGS_NS:
            builder.add_settings(settings_of(self._reader.identity, self._reader.facts), now_ns)
        return builder

    def acknowledge(self, counts: SendingCounts) -> None:
        """Note that the receiver has points with these counts."""
        self._acknowledged = counts
        if self._newest_ns - self._settings_ns >= SETTINGS_NS:
            self._settings_ns = self._newest_ns
        self._taken_ns = self._newest_ns

    def refuse(self) -> None:
        """Note that the receiver has refused the last ones: where the clock is set back, times may go back with it."""
        self._newest_ns = self._taken_ns
