"""Decide which of a ring's records are sent and in which order: times never go back. Pure, a record in, records out.

A rank that reduces with others writes its own record of a step at once and the cluster's of the same step when the
reduction is complete, often after its own of the next one. They are of one resource and share `train.step`, so a
rank's record waits until the cluster's record of its step or of a later one is there, or is given up.

Values that were logged beside the steps have records of their own, which are sent whatever the interval is: the rank's
has the time of the call, the cluster's a time just before that of the step whose reduction brought them together. They
go out with the step that comes next, or when none does: the rank's last step, which is older, must not be left behind.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from otel_train.ring import Kind, Record

HOLD_NS = 30 * 10**9
"""How long a rank's record waits for the cluster's of an earlier step: a reduction is waited for 10 s by default."""
MAX_OPEN = 64
"""Records of a rank whose cluster's values are still to come; a job has `max_in_flight` of them, 4 by default."""


LOST = -1
"""Sequence number of an entry that stands for lost records."""


Waiting = tuple[Record, tuple[float, ...]]
"""A record that is not sent yet, with the running totals up to it."""


class Outgoing(NamedTuple):
    """A record to send, with the running totals up to it."""

    record: Record
    totals: tuple[float, ...]
    names_step: bool
    """Whether `train.step` goes with it: a rank's record and the cluster's of one step share that point."""


class RecordOrder:
    """Order in which the records of one ring are sent.

    Args:
        interval_ns: Between two exports of the rank's own values.
        expects_cluster: Whether the ring will have the cluster's records, before one was seen.
        rank_time_ns: The time of the rank's newest values that were sent.
        logged_time_ns: The same of values that it logged beside the steps.
        stride: Steps between two records of the same kind.
    """

    __slots__ = (
        "_blocked_ns",
        "_cluster_ns",
        "_cluster_step",
        "_expects_cluster",
        "_interval_ns",
        "_logged",
        "_lost",
        "_named",
        "_newest_ns",
        "_open",
        "_stride",
        "logged_time_ns",
        "rank_time_ns",
        "unsent",
    )

    def __init__(
        self,
        interval_ns: int,
        *,
        expects_cluster: bool,
        rank_time_ns: int = 0,
        logged_time_ns: int = 0,
        stride: int = 1,
    ) -> None:
        self._interval_ns = interval_ns
        self._expects_cluster = expects_cluster
        self.rank_time_ns = rank_time_ns
        """The time of the rank's newest values that were sent."""
        self.logged_time_ns = logged_time_ns
        """The time of the newest values that the rank logged beside the steps and that were sent."""
        self._newest_ns = max(rank_time_ns, logged_time_ns)
        self._stride = stride
        self._cluster_ns = self._cluster_step = 0
        self._lost = False
        """Whether records were lost before the next one."""
        self._named = -1
        """Sequence number of the logged record that was sent last."""
        self._blocked_ns = 0
        """Since when a record waits for the cluster's of an earlier step; 0 when none does."""
        self._open: deque[Waiting] = deque()
        """Records of the rank's steps that are newer than the cluster's newest one, sent or not."""
        self._logged: list[Waiting] = []
        """Records of logged values that are not sent yet, in the order of their times."""
        self.unsent: Waiting | None = None
        """The rank's newest record, if it was not sent: the next one may be an interval away, or never come."""

    def copy(self) -> RecordOrder:
        """Return a copy that goes on from here."""
        other = RecordOrder(self._interval_ns, expects_cluster=self._expects_cluster, rank_time_ns=self.rank_time_ns)
        other._newest_ns, other._blocked_ns, other._stride = self._newest_ns, self._blocked_ns, self._stride
        other._cluster_ns, other._cluster_step = self._cluster_ns, self._cluster_step
        other._open, other.unsent, other._lost = self._open.copy(), self.unsent, self._lost
        other._named, other.logged_time_ns, other._logged = self._named, self.logged_time_ns, self._logged.copy()
        return other

    def resume(self, records: list[tuple[Record, tuple[float, ...]]]) -> None:
        """Take the last records before the cursor, which another sidecar has read, without sending them."""
        for record, totals in records:
            if record.logged:
                self._expects_cluster = self._expects_cluster or record.kind is Kind.CLUSTER
                if record.time_ns > self.logged_time_ns:
                    self._keep(record, totals)
            elif record.kind is Kind.CLUSTER:
                self._expects_cluster = True
                self._resolve(record.time_ns)
                self._note_cluster(record)
            else:
                self._append(record, totals)
                self.unsent = (record, totals) if record.time_ns > self.rank_time_ns else None
        self._supersede()
        if not self._expects_cluster:
            self._open.clear()

    def take(self, record: Record, totals: tuple[float, ...]) -> Iterator[Outgoing]:
        """Take the ring's next record, and yield the records that can be sent now."""
        if record.logged:
            self._keep(record, totals)
            if len(self._logged) > MAX_OPEN:
                yield from self._send_logged(self._logged[0][0].time_ns, last=not self._open)
            return
        if record.kind is Kind.CLUSTER:
            self._expects_cluster = True
            self._blocked_ns = 0
            while self._open and self._open[0][0].time_ns <= record.time_ns:
                yield from self._if_due(*self._open.popleft())
            yield from self._send_logged(record.time_ns)
            names_step = record.time_ns > self.rank_time_ns
            self._note_cluster(record)
            yield Outgoing(record, totals, names_step)
            return
        if self._expects_cluster:
            self._append(record, totals)
            self.unsent = (record, totals)
        else:
            yield from self._send_logged(record.time_ns)
            self.unsent = (record, totals)
            yield from self._if_due(record, totals)

    @property
    def waiting_ns(self) -> int | None:
        """Time of the oldest record that is to be sent, were there no later one; None without one."""
        waiting = [*self._logged[:1], *([self.unsent] if self.unsent is not None else [])]
        return min((record.time_ns for record, _ in waiting), default=None)

    def _keep(self, record: Record, totals: tuple[float, ...]) -> None:
        insort(self._logged, (record, totals), key=lambda waiting: waiting[0].time_ns)

    def _send_logged(self, until_ns: float, *, last: bool = False) -> Iterator[Outgoing]:
        """Yield the logged values up to a time; with `last` the rank's newest step in its place among them."""
        while self._logged and self._logged[0][0].time_ns <= until_ns:
            record, totals = self._logged.pop(0)
            if last and self.unsent is not None and self.unsent[0].time_ns <= record.time_ns:
                yield from self._send(*self.unsent)
            # A lone rank's are the cluster's too: the step is named once.
            names_step, self._named = record.sequence != self._named, record.sequence
            self.logged_time_ns, self._newest_ns = record.time_ns, max(self._newest_ns, record.time_ns)
            yield Outgoing(record, totals, names_step)
        self._supersede()

    def _supersede(self) -> None:
        """Forget the rank's newest step where something newer was sent."""
        self._newest_ns = max(self._newest_ns, self.logged_time_ns)
        if self.unsent is not None and self.unsent[0].time_ns < self._newest_ns:
            self.unsent = None

    def _note_cluster(self, record: Record) -> None:
        self._newest_ns = max(self._newest_ns, record.time_ns)
        self._cluster_ns, self._cluster_step = max(self._cluster_ns, record.time_ns), record.step

    def note_loss(self) -> None:
        """Note that records before the next one were overwritten: the cluster's of their steps may still come."""
        self._lost = True

    def _append(self, record: Record, totals: tuple[float, ...]) -> None:
        if self._lost:
            self._lost = False
            if record.step - self._cluster_step > self._stride:
                self._open.append((record._replace(sequence=LOST, time_ns=record.time_ns - 1), ()))
        self._open.append((record, totals))
        if len(self._open) > MAX_OPEN:
            self._open.popleft()

    def note_time(self, now_ns: int) -> None:
        """Note how long a record waits.

        Args:
            now_ns: The time of a clock that is never set.
        """
        if len(self._open) + len(self._logged) < 2 or not self._open:
            self._blocked_ns = 0
        elif not self._blocked_ns:
            self._blocked_ns = now_ns

    def give_up(self, now_ns: int) -> Iterator[Outgoing]:
        """Yield records that have waited too long for the cluster's values, and wait for those no longer."""
        if self._blocked_ns and now_ns - self._blocked_ns > HOLD_NS:
            self._blocked_ns = 0
            self._expects_cluster = False
            yield from self.release()

    def release(self) -> Iterator[Outgoing]:
        """Yield the records that wait for the cluster's values and are due, and all logged values."""
        while self._open:
            yield from self._if_due(*self._open.popleft())
        yield from self._send_logged(math.inf, last=True)

    def show(self) -> Iterator[Outgoing]:
        """Yield what is not due, or goes out with the next step: none comes soon."""
        if not self._open or (self.unsent is not None and self._open[0][0].sequence == self.unsent[0].sequence):
            until_ns = self._open[0][0].time_ns if self._open else math.inf
            yield from self._send_logged(until_ns, last=True)
            if self.unsent is not None:
                yield from self._send(*self.unsent)
                self.unsent = None

    def _if_due(self, record: Record, totals: tuple[float, ...]) -> Iterator[Outgoing]:
        if record.sequence != LOST and record.time_ns - self.rank_time_ns >= self._interval_ns:
            yield from self._send_logged(record.time_ns)
            yield from self._send(record, totals)

    def _send(self, record: Record, totals: tuple[float, ...]) -> Iterator[Outgoing]:
        if record.time_ns <= self.rank_time_ns or record.time_ns < self._newest_ns:
            return  # it was sent, or newer ones were
        self.rank_time_ns = self._newest_ns = record.time_ns
        if self.unsent is not None and self.unsent[0].time_ns <= record.time_ns:
            self.unsent = None
        yield Outgoing(record, totals, record.time_ns > self._cluster_ns)

    def _resolve(self, time_ns: int) -> None:
        while self._open and self._open[0][0].time_ns <= time_ns:
            self._open.popleft()
