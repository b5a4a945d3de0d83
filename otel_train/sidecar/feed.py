"""Follow one ring: what is to be sent next, and, once it was acknowledged, where to go on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from otel_train.catalogue import rows
from otel_train.ring import Kind, Record, RingReader
from otel_train.sidecar.points import Origin, PointBuilder

BATCH_RECORDS = 256
"""Records of one ring in one batch at most."""
MIN_AGE_INTERVAL_NS = 10**9
"""Between two times that a rank's age is sent."""
MAX_POINTS = 20_000
"""Data points in one request: OTLP receivers take 4 MiB by default, which leaves 200 bytes for each."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one ring has to send."""

    metrics: PointBuilder | None
    """None when there is nothing to send, only a cursor to move (records of a rank between two of its exports)."""
    points: int
    """Data points in it."""
    position: int
    dropped: int
    totals: tuple[float, ...]
    rank_time_ns: int
    """The time stamp of the rank's newest exported values."""
    held: tuple[Record, tuple[float, ...]] | None
    """The newest record of the rank that was not exported, with the totals up to it."""
    full: bool
    """Whether it holds as many records as a batch may: the ring had more."""


class RingFeed:
    """The sidecar's end of one ring.

    Args:
        path: The ring file.
        rank_interval: Seconds between two exports of the rank's own values.
        restarts: How often the sidecar was started again.
    """

    def __init__(self, path: Path, rank_interval: float, restarts: int = 0) -> None:
        self.reader = RingReader(path, writable=True)
        cursor = self.reader.cursor
        self._position, self._dropped, self._totals = cursor.position, cursor.dropped, cursor.totals
        self._interval_ns = int(rank_interval * 1e9)
        self._restarts = restarts
        # A record of a rank that is alone is two: its own and the cluster's.
        self._limit = max(1, min(BATCH_RECORDS, MAX_POINTS // (2 * len(self.reader.layout.series))))
        self._origin = Origin(self.reader.identity, self.reader.layout)
        self._rank_time_ns = cursor.rank_time_ns
        self._held = self._held_before()
        self._age_ns = 0
        """When the age of the rank's last step was sent last."""

    def _held_before(self) -> tuple[Record, tuple[float, ...]] | None:
        """Find the record of the rank that a sidecar before this one had read and not sent, and ended."""
        records, _, _ = self.reader.read(max(0, self._position - BATCH_RECORDS), min(BATCH_RECORDS, self._position))
        for record in reversed(records):
            if record.kind is Kind.RANK and record.sequence < self._position:
                # The totals at the cursor are those at its newest record.
                unsent = record.time_ns > self._rank_time_ns
                return (record, self._totals[: self.reader.layout.sums]) if unsent else None
        return None

    @property
    def ended(self) -> bool:
        """Whether no record will come any more: the ring was closed, or its writer is gone."""
        return self.reader.progress.closed or not self.reader.writer_lives

    @property
    def drained(self) -> bool:
        """Whether all that was recorded has been acknowledged."""
        return self._position >= self.reader.progress.written and self._held is None

    def next(self) -> Batch | None:
        """Return the next batch without moving the cursor, or None when there is nothing to do.

        Raises:
            RingError: The ring is damaged.
            ValueError, OverflowError, struct.error: A value has no place in the protocol's types.
        """
        ended = self.ended  # asked before reading: what is written until then is read below
        records, position, lost = self.reader.read(self._position, self._limit)
        now_ns = time.time_ns()
        tells_age = not ended and abs(now_ns - self._age_ns) >= max(self._interval_ns, MIN_AGE_INTERVAL_NS)
        if not records and not lost and not (ended and self._held) and not tells_age:
            return None
        width = self.reader.layout.sums
        builder = PointBuilder(self._origin)
        own, cluster = list(self._totals[:width]), list(self._totals[width:])
        held, rank_time_ns = self._held, self._rank_time_ns
        for record in records:
            totals = own if record.kind is Kind.RANK else cluster
            for place, value in enumerate(record.values[:width]):
                totals[place] += value
            if record.kind is Kind.CLUSTER:
                builder.add_cluster(record.step, record.time_ns, record.values, cluster, ordinal=record.ordinal)
            else:
                held = (record, tuple(own))
                if record.time_ns - rank_time_ns >= self._interval_ns:
                    rank_time_ns, held = self._add_rank(builder, record, own), None
        # A rank that hangs shows the step that it ended last, not the one before the interval.
        late = tells_age and held is not None and now_ns - held[0].time_ns >= self._interval_ns
        if (ended or late) and held is not None and position >= self.reader.progress.written:
            rank_time_ns, held = self._add_rank(builder, *held), None
        if tells_age:
            self._add_age(builder, now_ns)
        if rank_time_ns != self._rank_time_ns:
            self._add_pipeline(builder, rank_time_ns, records, self._dropped + lost)
        return Batch(
            None if builder.points == 0 else builder,
            builder.points,
            position,
            self._dropped + lost,
            (*own, *cluster),
            rank_time_ns,
            held,
            position - self._position >= self._limit,
        )

    def _add_rank(self, builder: PointBuilder, record: Record, totals: list[float] | tuple[float, ...]) -> int:
        builder.add_rank(record.step, record.time_ns, record.values, totals)
        return record.time_ns

    def _add_age(self, builder: PointBuilder, now_ns: int) -> None:
        """Tell how long ago the last step ended, with the present as its time: a rank that hangs writes no records."""
        self._age_ns = now_ns
        phase, _ = self.reader.phase
        since = self.reader.progress.time_ns or self.reader.header.created_ns
        if phase is not None:
            builder.add_pipeline(rows.STEP_AGE, now_ns, max(0.0, (now_ns - since) / 1e9), phase.name.lower())

    def _add_pipeline(self, builder: PointBuilder, time_ns: int, records: list[Record], dropped: int) -> None:
        builder.add_pipeline(rows.RECORDS_DROPPED, time_ns, dropped)
        builder.add_pipeline(rows.REDUCTIONS_ABANDONED, time_ns, self.reader.progress.abandoned)
        builder.add_pipeline(rows.SIDECAR_RESTARTS, time_ns, self._restarts)
        oldest = records[0].time_ns if records else time_ns
        builder.add_pipeline(rows.EXPORT_LAG, time_ns, max(0.0, (time.time_ns() - oldest) / 1e9))

    def commit(self, batch: Batch) -> None:
        """Move the cursor behind a batch: the receiver has acknowledged it."""
        self.reader.move_cursor(batch.position, batch.dropped, batch.totals, batch.rank_time_ns)
        self._position, self._dropped, self._totals = batch.position, batch.dropped, batch.totals
        self._rank_time_ns, self._held = batch.rank_time_ns, batch.held
