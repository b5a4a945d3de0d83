"""Follow one ring: make the next batch to send, and move the cursor after its acknowledgement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from otel_train.ring import Cursor, Kind, Record, RingReader
from otel_train.sidecar.clock_points import ClockPoints
from otel_train.sidecar.live_points import MIN_INTERVAL_NS, LivePoints, SendingCounts
from otel_train.sidecar.points import Origin, PointBuilder
from otel_train.sidecar.record_order import RecordOrder

BATCH_RECORDS = 256
"""Records of one ring in one batch at most."""
MAX_POINTS = 20_000
"""Data points in one request."""
MAX_BYTES = 3 << 20
"""Bytes of one request: OTLP receivers take 4 MiB by default."""
LEFT_OUT = 600.0
"""Seconds that a metric is left out which the receiver refuses; then it is tried again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one ring that are sent together."""

    metrics: PointBuilder | None
    """The records' points, a function of the records alone; None where only the cursor moves."""
    live: PointBuilder | None
    """Points that describe the sending, at the present."""
    records: int
    """Records in it, sent or not."""
    repeated: bool
    """Whether the receiver may have some of it: a request that held it was not answered."""
    cursor: Cursor
    order: RecordOrder
    full: bool
    """Whether it holds as many records as a batch may: the ring had more."""
    counts: SendingCounts
    """Counts of the live points, where there are any."""
    refused: Counter[str]
    """Points of the ring that were refused until then, by reason: with those of metrics that are left out here."""

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
        rank_interval: Seconds between two exports of the rank's own values; None for what the job has set.
        restarts: How often the sidecar was started again.
    """

    def __init__(self, path: Path, rank_interval: float | None, restarts: int = 0) -> None:
        self.reader = RingReader(path, writable=True)
        self._cursor = self.reader.cursor
        if self._cursor.sent < self._cursor.position:
            self._cursor = self._cursor._replace(sent=self._cursor.position, sent_totals=self._cursor.totals)
        if rank_interval is None:
            noted = self.reader.facts.get("telemetry.rank_interval")
            rank_interval = max(0.0, float(noted)) if isinstance(noted, int | float) else 10.0
        self._interval_ns = int(rank_interval * 1e9)
        self.limit = self._most
        """Records in the next batch at most; the sender lowers it to find what a receiver refuses."""
        self._left_out: dict[str, tuple[float, str]] = {}
        """Metrics that the receiver refuses for good, when they are tried again, and the reason."""
        self._suspected: set[str] = set()
        """Metrics that it refused in one record."""
        self._origin = Origin(self.reader.identity, self.reader.base_layout)
        self.points = 0
        """Points that the receiver has taken from this feed."""
        self.refused_records = 0
        """Records of which the receiver has taken nothing, though it has answered."""
        self.refused = Counter(self.reader.refused)
        """Points of the ring that receivers refused for good, by reason."""
        self._unanswered = self._cursor.sent
        """The position that a request without an answer has reached."""
        self._order = self._order_before()
        self._live = LivePoints(self.reader, self._origin, interval_ns=self._interval_ns, restarts=restarts)
        self.clock = ClockPoints(self.reader, self._origin, interval=max(self._interval_ns, MIN_INTERVAL_NS) / 1e9)
        if self.ended and self.drained and self.end_is_told:
            self._live.acknowledge(self._live.counts(self._cursor, self.refused, ended=True))

    def _order_before(self) -> RecordOrder:
        """Return the order as an earlier sidecar has left it, from the last records that it had read."""
        identity, cursor, width = self.reader.identity, self._cursor, self._width
        stride = self.reader.facts.get("telemetry.log_every")
        order = RecordOrder(
            self._interval_ns,
            expects_cluster=identity.rank == 0 and identity.world_size > 1,
            rank_time_ns=cursor.rank_time_ns,
            logged_time_ns=cursor.logged_time_ns,
            stride=stride if isinstance(stride, int) else 1,
        )
        records, _, _ = self.reader.read(max(0, cursor.position - BATCH_RECORDS), min(BATCH_RECORDS, cursor.position))
        own = list(cursor.totals[:width])
        before: list[tuple[Record, tuple[float, ...]]] = []
        for record in reversed([record for record in records if record.sequence < cursor.position]):
            # The totals at the cursor are those of its newest record.
            before.append((record, tuple(own)))
            if record.kind is Kind.RANK and not record.logged:
                own = [total - value for total, value in zip(own, record.values, strict=False)]
        if cursor.position and (not before or before[-1][0].first > 0):
            order.note_loss()  # those before them are not read, or overwritten
        order.resume(before[::-1])
        return order

    @property
    def _most(self) -> int:
        # A record of a rank that is alone is two: its own and the cluster's.
        return max(1, min(BATCH_RECORDS, MAX_POINTS // (2 * len(self.reader.layout.series))))

    @property
    def _width(self) -> int:
        """Sums that are added up: late keys are gauges, and have no totals."""
        return self.reader.base_layout.sums

    @property
    def position(self) -> int:
        """How many records the receiver has, or will never have."""
        return self._cursor.position

    @property
    def ended(self) -> bool:
        """Whether no more records will come: the ring was closed, or its writer is gone."""
        progress = self.reader.progress
        return (progress.closed and not progress.is_ending) or not self.reader.writer_lives

    @property
    def drained(self) -> bool:
        """Whether all that was recorded has been acknowledged."""
        taken = self._cursor.position >= self.reader.progress.written and self._order.waiting_ns is None
        return taken and not self._live.is_exiting

    @property
    def end_is_told(self) -> bool:
        """Whether a receiver knows how the session has ended, as far as it can know: one that failed is told of.

        All records may have been acknowledged while the rank lived, and its sidecar have died with it.
        """
        ended = self.ended
        return not ended or self.reader.end_told or not self._live.counts(self._cursor, {}, ended=ended).exit_code

    def next(self, max_bytes: int = MAX_BYTES, *, live: bool = True) -> Batch | None:
        """Return the next batch without moving the cursor, or None when there is nothing to do.

        Args:
            max_bytes: Bytes of its points at most, unless a single record has more.
            live: Whether it may have live points.

        Raises:
            RingError: The ring is damaged.
            ValueError, OverflowError, struct.error: A value does not fit the protocol's types.
        """
        ended = self.ended  # asked before reading: records written until then are read below
        written, clock_ns = self.reader.progress.written, time.monotonic_ns()
        for name in [name for name, (until, _) in self._left_out.items() if time.monotonic() >= until]:
            del self._left_out[name]
        self._order.note_time(clock_ns)
        cursor, order = self._cursor, self._order.copy()
        records, position, lost = self._read(min(self.limit, self._most))
        builder = PointBuilder(self._origin)
        totals = cursor.totals
        if lost:
            totals = self._totals_before(records, position)
            order.note_loss()
        width = self._width
        own, cluster = list(totals[:width]), list(totals[width:])
        now_ns = time.time_ns()
        for outgoing in order.give_up(clock_ns):
            self._add(builder, *outgoing)
        for number, record in enumerate(records, start=1):
            sums = own if record.kind is Kind.RANK else cluster
            for index, value in enumerate(() if record.logged else record.values[:width]):
                sums[index] += value
            for outgoing in order.take(record, tuple(sums)):
                self._add(builder, *outgoing)
            last = number == len(records) or records[number].sequence != record.sequence
            # The next record takes about as much as each of these.
            if last and builder.size * (1 + 1 / number) > max_bytes:
                position = record.sequence + 1
                break
        if position >= self.reader.progress.written:
            self._finish(builder, order, now_ns, ended=ended)
        left_out = Counter[str]()
        for name, (_, reason) in self._left_out.items():
            left_out[reason] += builder.leave_out({name})
        end = cursor._replace(
            position=position,
            dropped=cursor.dropped + lost,
            totals=(*own, *cluster),
            rank_time_ns=order.rank_time_ns,
            logged_time_ns=order.logged_time_ns,
        )
        if position >= cursor.sent:
            end = end._replace(sent=position, sent_totals=end.totals)
        refused = self.refused + left_out
        counts, live_points = self._live.counts(end, refused, ended=ended), None
        if live and self._live.are_due(counts, end, now_ns, ended=ended):
            oldest_ns = records[0].time_ns if records else None
            live_points = self._live.make(counts, now_ns, ended=self.ended, oldest_ns=oldest_ns)
            if not ended:
                self.clock.add_to(live_points, now_ns)
        if position == cursor.position and builder.points == 0 and live_points is None:
            return None
        return Batch(
            metrics=builder if builder.points else None,
            live=live_points,
            records=len({record.sequence for record in records if record.sequence < position}),
            repeated=cursor.position < self._unanswered,
            cursor=end,
            order=order,
            full=position < written,
            counts=counts,
            refused=refused,
        )

    def _read(self, limit: int) -> tuple[Sequence[Record], int, int]:
        """Read records without a gap; return them, the position after them, and how many before them are lost."""
        records, position, lost = self.reader.read(self._cursor.position, limit)
        if not lost or not records:
            return records, position, lost
        for index in range(1, len(records)):
            if records[index].first > records[index - 1].sequence + 1:
                del records[index:]
                break
        return records, records[-1].sequence + 1, records[0].first - self._cursor.position

    def _totals_before(self, records: Sequence[Record], position: int) -> tuple[float, ...]:
        """Return the totals before the first of these records, where those before them are lost.

        A request may have had these with the lost ones counted: they must be sent with the same values again.
        """
        first, sent = records[0].first if records else position, self._cursor.sent
        if first >= sent or sent > self.reader.progress.written:
            return self._cursor.sent_totals if first >= sent else self._cursor.totals
        width = self._width
        totals = list(self._cursor.sent_totals)
        records, _, lost = self.reader.read(first, sent - first)
        if lost:  # they are overwritten at this moment
            return self._cursor.totals
        for record in [record for record in records if not record.logged]:
            start = 0 if record.kind is Kind.RANK else width
            for index, value in enumerate(record.values[:width], start):
                totals[index] -= value
        return tuple(totals)

    def _finish(self, builder: PointBuilder, order: RecordOrder, now_ns: int, *, ended: bool) -> None:
        """Add records that wait for later ones, where no later one will come, or not soon."""
        if ended:
            for outgoing in order.release():
                self._add(builder, *outgoing)
        # A rank that hangs shows the step that it ended last, not the one before the interval.
        least = max(self._interval_ns, MIN_INTERVAL_NS)
        waiting_ns = order.waiting_ns
        if waiting_ns is not None and (ended or now_ns - waiting_ns >= least):
            for outgoing in order.show():
                self._add(builder, *outgoing)

    @staticmethod
    def _add(builder: PointBuilder, record: Record, totals: tuple[float, ...], names_step: bool) -> None:  # noqa: FBT001
        step, time_ns, values, layout = record.step, record.time_ns, record.values, record.layout
        if record.kind is Kind.RANK:
            builder.add_rank(step, time_ns, values, totals, names_step=names_step, layout=layout)
            return
        builder.add_cluster(
            step,
            time_ns,
            values,
            totals,
            ordinal=record.ordinal,
            names_step=names_step,
            layout=layout,
            partial=record.partial,
        )

    def probe(self) -> PointBuilder:
        """Return live points, for finding out whether a receiver takes anything."""
        ended = self.ended
        return self._live.make(self._live.counts(self._cursor, self.refused, ended=ended), time.time_ns(), ended=ended)

    def refuse_live(self) -> None:
        """Note that the receiver has refused live points for good."""
        self._live.refuse()

    # -- after sending ---------------------------------------------------------------------------------------------

    def sending(self, batch: Batch) -> None:
        """Note that a batch is about to be sent: it may arrive without an answer."""
        if batch.metrics is not None and batch.cursor.position > self._cursor.sent:
            sent = batch.cursor
            self._cursor = self._cursor._replace(sent=sent.sent, sent_totals=sent.sent_totals)
            self.reader.move_cursor(self._cursor)

    def unanswered(self, batch: Batch) -> None:
        """Note that a batch was sent and may have arrived."""
        self._unanswered = max(self._unanswered, batch.cursor.position)

    def leave_out(self, names: set[str], reason: str) -> None:
        """Leave out metrics for a while that the receiver has refused in two records of which it took the rest."""
        for name in names & self._suspected:
            self._left_out[name] = time.monotonic() + LEFT_OUT, reason
        self._suspected = names

    def commit(self, batch: Batch, *, refused: Mapping[str, int] | None = None, grows: bool = True) -> None:
        """Move the cursor after a batch that was acknowledged, except for some points.

        Args:
            batch: The batch that was sent.
            refused: Points of it that the receiver refused for good, by reason.
            grows: Whether the next one may be larger.
        """
        count = sum((refused or {}).values())
        self.refused = batch.refused + Counter(refused)
        self._cursor = batch.cursor._replace(refused=self.refused.total())
        self.reader.move_cursor(self._cursor)
        self.reader.note_refused(self.refused)
        self._order = batch.order
        self.points += max(0, batch.points - count)
        if batch.metrics is not None and count >= batch.points:
            self.refused_records += batch.records
        if grows:
            self.limit = min(self._most, 2 * self.limit)
        if batch.live is not None:
            self._live.acknowledge(batch.counts)
            if batch.counts.exit_code is not None:
                self.reader.note_end_told()
