"""Follow one ring: what is to be sent next, and, once it was acknowledged, where to go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otel_train.catalogue import rows
from otel_train.ring import Cursor, Kind, Record, RingReader
from otel_train.sidecar.points import Origin, PointBuilder
from otel_train.sidecar.record_order import RecordOrder

BATCH_RECORDS = 256
"""Records of one ring in one batch at most."""
MIN_AGE_INTERVAL_NS = 10**9
"""Between two times that a rank's age is sent."""
MAX_POINTS = 20_000
"""Data points in one request."""
MAX_BYTES = 3 << 20
"""Of one request: OTLP receivers take 4 MiB by default."""
LIVE_STEP_NS = 10**6
"""Between two times of live points at least: stores count in milliseconds."""
LEFT_OUT = 600.0
"""Seconds that a metric is left out which the receiver refuses; then it is tried again."""
_Figures = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one ring has to send."""

    metrics: PointBuilder | None
    """The records' points, a function of the records alone; None where there are none, only a cursor to move."""
    live: PointBuilder | None
    """What describes the sending, at the present."""
    records: int
    """Records of the ring that the cursor moves over."""
    repeated: bool
    """Whether the receiver may have some of it: a request that held it was not answered."""
    cursor: Cursor
    order: RecordOrder
    full: bool
    """Whether it holds as many records as a batch may: the ring had more."""
    figures: _Figures
    """What the live points say, where there are any."""

    @property
    def points(self) -> int:
        """Data points in it."""
        return sum(builder.points for builder in (self.metrics, self.live) if builder is not None)

    @property
    def names(self) -> list[str]:
        """The metrics in it."""
        return [name for builder in (self.metrics, self.live) if builder is not None for name in builder.names]


class RingFeed:
    """The sidecar's end of one ring.

    Args:
        path: The ring file.
        rank_interval: Seconds between two exports of the rank's own values.
        restarts: How often the sidecar was started again.
    """

    def __init__(self, path: Path, rank_interval: float, restarts: int = 0) -> None:
        self.reader = RingReader(path, writable=True)
        self._cursor = self.reader.cursor
        if self._cursor.sent < self._cursor.position:
            self._cursor = self._cursor._replace(sent=self._cursor.position, sent_totals=self._cursor.totals)
        self._interval_ns = int(rank_interval * 1e9)
        self._restarts = restarts
        # A record of a rank that is alone is two: its own and the cluster's.
        self._most = max(1, min(BATCH_RECORDS, MAX_POINTS // (2 * len(self.reader.layout.series))))
        self.limit = self._most
        """Records in the next batch at most; the sender lowers it to find what a receiver refuses."""
        self._left_out: dict[str, float] = {}
        """Metrics that the receiver refuses for good, and when they are tried again."""
        self._suspected: set[str] = set()
        """Metrics that it refused in one record."""
        self._origin = Origin(self.reader.identity, self.reader.layout)
        self._unanswered = self._cursor.sent
        """The position that a request without an answer has reached."""
        self._order = self._order_before()
        self._age_ns = 0
        """When the age of the rank's last step was sent last."""
        self._live_ns = 0
        """The newest time of live points."""
        self._told: _Figures | None = None if not self.ended or not self.drained else self._figures(self._cursor)
        """The figures that the receiver has."""

    def _order_before(self) -> RecordOrder:
        """Return the order that a sidecar before this one had come to, from the last records that it had read."""
        identity, cursor, width = self.reader.identity, self._cursor, self.reader.layout.sums
        stride = self.reader.facts.get("telemetry.log_every")
        order = RecordOrder(
            self._interval_ns,
            expects_cluster=identity.rank == 0 and identity.world_size > 1,
            rank_time_ns=cursor.rank_time_ns,
            stride=stride if isinstance(stride, int) else 1,
        )
        records, _, _ = self.reader.read(max(0, cursor.position - BATCH_RECORDS), min(BATCH_RECORDS, cursor.position))
        own = list(cursor.totals[:width])
        before: list[tuple[Record, tuple[float, ...]]] = []
        for record in reversed([record for record in records if record.sequence < cursor.position]):
            # The totals at the cursor are those at its newest record.
            before.append((record, tuple(own)))
            if record.kind is Kind.RANK:
                own = [total - value for total, value in zip(own, record.values, strict=False)]
        if cursor.position and (not before or before[-1][0].sequence > 0):
            order.note_loss()  # those before them are not looked at, or overwritten
        order.resume(before[::-1])
        return order

    @property
    def position(self) -> int:
        """How many records the receiver has, or will never have."""
        return self._cursor.position

    @property
    def ended(self) -> bool:
        """Whether no record will come any more: the ring was closed, or its writer is gone."""
        return self.reader.progress.closed or not self.reader.writer_lives

    @property
    def drained(self) -> bool:
        """Whether all that was recorded has been acknowledged."""
        return self._cursor.position >= self.reader.progress.written and self._order.unsent is None

    def next(self, max_bytes: int = MAX_BYTES, *, live: bool = True) -> Batch | None:
        """Return the next batch without moving the cursor, or None when there is nothing to do.

        Args:
            max_bytes: Of its points, unless a single record has more.
            live: Whether what describes the sending may be in it.

        Raises:
            RingError: The ring is damaged.
            ValueError, OverflowError, struct.error: A value has no place in the protocol's types.
        """
        ended = self.ended  # asked before reading: what is written until then is read below
        written, clock_ns = self.reader.progress.written, time.monotonic_ns()
        for name in [name for name, until in self._left_out.items() if time.monotonic() >= until]:
            del self._left_out[name]
        self._order.note_time(clock_ns)
        cursor, order = self._cursor, self._order.copy()
        records, position, lost = self._read(self.limit)
        builder = PointBuilder(self._origin)
        totals = cursor.totals
        if lost:
            totals = self._totals_before(records, position)
            order.note_loss()
        width = self.reader.layout.sums
        own, cluster = list(totals[:width]), list(totals[width:])
        now_ns = time.time_ns()
        for outgoing in order.give_up(clock_ns):
            self._add(builder, *outgoing)
        for index, record in enumerate(records):
            sums = own if record.kind is Kind.RANK else cluster
            for place, value in enumerate(record.values[:width]):
                sums[place] += value
            for outgoing in order.take(record, tuple(sums)):
                self._add(builder, *outgoing)
            last = index + 1 == len(records) or records[index + 1].sequence != record.sequence
            # The next record takes about as much as each of these.
            if last and builder.size * (1 + 1 / (index + 1)) > max_bytes:
                position = record.sequence + 1
                break
        if position >= self.reader.progress.written:
            self._finish(builder, order, now_ns, ended=ended)
        end = cursor._replace(
            position=position,
            dropped=cursor.dropped + lost,
            totals=(*own, *cluster),
            rank_time_ns=order.rank_time_ns,
            refused=cursor.refused + builder.leave_out(self._left_out),
        )
        if position >= cursor.sent:
            end = end._replace(sent=position, sent_totals=end.totals)
        figures = self._figures(end)
        told = self._live(figures, records, now_ns) if live and self._tells(figures, end, now_ns, ended=ended) else None
        if position == cursor.position and builder.points == 0 and told is None:
            return None
        return Batch(
            metrics=builder if builder.points else None,
            live=told,
            records=position - cursor.position - lost,
            repeated=cursor.position < self._unanswered,
            cursor=end,
            order=order,
            full=position < written,
            figures=figures,
        )

    def _read(self, limit: int) -> tuple[Sequence[Record], int, int]:
        """Read records that follow each other; what is missing before them, and how many that is, is lost."""
        records, position, lost = self.reader.read(self._cursor.position, limit)
        if not lost or not records:
            return records, position, lost
        for index in range(1, len(records)):
            if records[index].sequence > records[index - 1].sequence + 1:
                del records[index:]
                break
        return records, records[-1].sequence + 1, records[0].sequence - self._cursor.position

    def _totals_before(self, records: Sequence[Record], position: int) -> tuple[float, ...]:
        """Return the totals before the first of these records, where those before them are lost.

        A request may have had these with the lost ones counted: they must be sent with the same values again.
        """
        first, sent = records[0].sequence if records else position, self._cursor.sent
        if first >= sent or sent > self.reader.progress.written:
            return self._cursor.sent_totals if first >= sent else self._cursor.totals
        width = self.reader.layout.sums
        totals = list(self._cursor.sent_totals)
        records, _, lost = self.reader.read(first, sent - first)
        if lost:  # they are overwritten at this moment
            return self._cursor.totals
        for record in records:
            start = 0 if record.kind is Kind.RANK else width
            for place, value in enumerate(record.values[:width], start):
                totals[place] -= value
        return tuple(totals)

    def _finish(self, builder: PointBuilder, order: RecordOrder, now_ns: int, *, ended: bool) -> None:
        """Add what waits for records that are not there yet, where none will come, or not soon."""
        if ended:
            for outgoing in order.release():
                self._add(builder, *outgoing)
        # A rank that hangs shows the step that it ended last, not the one before the interval.
        least = max(self._interval_ns, MIN_AGE_INTERVAL_NS)
        if order.unsent is not None and (ended or now_ns - order.unsent[0].time_ns >= least):
            for outgoing in order.show():
                self._add(builder, *outgoing)

    @staticmethod
    def _add(builder: PointBuilder, record: Record, totals: tuple[float, ...], names_step: bool) -> None:  # noqa: FBT001
        step, time_ns, values = record.step, record.time_ns, record.values
        if record.kind is Kind.RANK:
            builder.add_rank(step, time_ns, values, totals, names_step=names_step)
        else:
            builder.add_cluster(step, time_ns, values, totals, ordinal=record.ordinal, names_step=names_step)

    # -- what describes the sending ------------------------------------------------------------------------------

    def _figures(self, cursor: Cursor) -> _Figures:
        return cursor.dropped, cursor.refused, self.reader.progress.abandoned, self._restarts

    def _tells(self, figures: _Figures, end: Cursor, now_ns: int, *, ended: bool) -> bool:
        """Tell whether it is time for live points: once an interval, and at the end where they are news."""
        if ended:
            return figures != self._told and end.position >= self.reader.progress.written
        return abs(now_ns - self._age_ns) >= max(self._interval_ns, MIN_AGE_INTERVAL_NS)

    def _live(self, figures: _Figures, records: Sequence[Record], now_ns: int) -> PointBuilder:
        """Return what describes the sending, at the present: a rank that hangs writes no records."""
        self._age_ns = now_ns
        # A clock that was set back must not take the points with it: many stores refuse what is older than the last.
        self._live_ns = now_ns = max(now_ns, self._live_ns + LIVE_STEP_NS)
        builder = PointBuilder(self._origin, live=True)
        phase, _ = self.reader.phase
        since = self.reader.progress.time_ns or self.reader.header.created_ns
        if phase is not None and not self.ended:
            builder.add_pipeline(rows.STEP_AGE, now_ns, max(0.0, (now_ns - since) / 1e9), phase.name.lower())
        counts = (rows.RECORDS_DROPPED, rows.POINTS_REFUSED, rows.REDUCTIONS_ABANDONED, rows.SIDECAR_RESTARTS)
        for row, figure in zip(counts, figures, strict=True):
            builder.add_pipeline(row, now_ns, figure)
        oldest = records[0].time_ns if records else now_ns
        builder.add_pipeline(rows.EXPORT_LAG, now_ns, max(0.0, (now_ns - oldest) / 1e9))
        return builder

    def probe(self) -> PointBuilder:
        """Return live points, for finding out whether a receiver takes anything."""
        return self._live(self._figures(self._cursor), (), time.time_ns())

    # -- what came of it -----------------------------------------------------------------------------------------

    def sending(self, batch: Batch) -> None:
        """Note that a batch is about to be sent: it may arrive though nobody learns of it."""
        if batch.metrics is not None and batch.cursor.position > self._cursor.sent:
            sent = batch.cursor
            self._cursor = self._cursor._replace(sent=sent.sent, sent_totals=sent.sent_totals)
            self.reader.move_cursor(self._cursor)

    def unanswered(self, batch: Batch) -> None:
        """Note that a batch was sent and nobody knows whether it arrived."""
        self._unanswered = max(self._unanswered, batch.cursor.position)

    def leave_out(self, names: set[str]) -> None:
        """Send no points of metrics for a while of which the receiver refuses all, in two records that it takes."""
        for name in names & self._suspected:
            self._left_out[name] = time.monotonic() + LEFT_OUT
        self._suspected = names

    def commit(self, batch: Batch, *, refused: int = 0, grows: bool = True) -> None:
        """Move the cursor behind a batch: it was acknowledged, but for so many points.

        Args:
            batch: What was sent.
            refused: Points that the receiver refused for good.
            grows: Whether the next one may be larger.
        """
        self._cursor = batch.cursor._replace(refused=batch.cursor.refused + refused)
        self.reader.move_cursor(self._cursor)
        self._order = batch.order
        if grows:
            self.limit = min(self._most, 2 * self.limit)
        if batch.live is not None:
            self._told = batch.figures
