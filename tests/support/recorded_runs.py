"""Runs whose records bear times of the past: what their ranks measured, as plain numbers, and their rings."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from otel_train.catalogue import LEDGER, MIXING, TIMING, Metric, Phase, Reduction, rows
from otel_train.host_clock import Reference
from otel_train.otlp.answers import Answer, Verdict
from otel_train.otlp.exporter import Exporter
from otel_train.refusals import Refusal
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_files, ring_path
from otel_train.sidecar import Sidecar
from otel_train.sidecar.live_points import LivePoints, SendingCounts
from otel_train.sidecar.points import Origin
from tests.support.rank_ring import feeds, sender

SOURCES = ("code", "prose")
LOSS = Metric("train/loss", Reduction.MEAN, attribute=rows.TOKENS.attribute)
SCHEMA = Schema((*MIXING, *LEDGER, *TIMING, LOSS), SOURCES)
LAYOUT = SCHEMA.layout()
BUCKETS = rows.REUSE_DISTANCE.measures[0].size
REASON = str(Refusal.TOO_NEW)
"""Why the receiver has refused points, as many of the last rank as it has lost records."""
LIVE_INTERVAL = 10.0
"""Least seconds between two times that a sidecar tells of a rank's state; more where a job takes days."""


def measured(rank: int, number: int, stride: int) -> dict[str, list[float]]:
    """Return what a rank measures in its interval of that number, by measure; no two intervals in a row are alike."""
    distance = [0.0] * BUCKETS
    distance[number % 17], distance[-1] = 1.0 + rank, 3.0
    evictions = (1 + rank) * (number % 3)
    return {
        "stream_mixing.picks": [(4.0 + (rank + number) % 3) * stride],
        "stream_mixing.active_readers": [4.0],
        "stream_mixing.restarts": [float(number % 2)],
        "stream_mixing.age_sum": [4.0 + (number + rank) % 5],
        "stream_mixing.switches": [2.0 + number % 2],
        "stream_mixing.pairs": [4.0],
        "stream_mixing.decayed_counts": [3.0 + number % 4, 1.0],
        "stream_mixing.decayed_targets": [3.0, 1.0],
        "stream_mixing.tokens": [900.0 + number % 7, 100.0 + rank],
        "stream_mixing.starved_readers": [float(number % 11 == 0)],
        "ledger.evictions": [float(evictions)],
        "ledger.stale_evictions": [float(number % 5 == 0)],
        "ledger.fresh_writes": [3.0 + number % 4],
        "ledger.false_evictions": [float((number + rank) % 2)],
        "ledger.entries": [50.0 + number % 9],
        "ledger.capacity": [64.0],
        "ledger.hits": [2.0 + number % 2],
        "ledger.reuse_distance": distance,
        "train.step.seconds": [0.1 * stride * (1 + 0.01 * (rank % 7))],
        "train.step.count": [float(stride)],
        "train.data.wait_seconds": [0.01 * stride],
        "train.ranks": [1.0],
        "train/loss:total": [0.0],
        "train/loss:total by source": [2.0 + number % 3, 1.0 + rank],
        "train/loss:count": [0.0],
        "train/loss:count by source": [1.0, 2.0],
    }


def oldest_reader(rank: int, number: int) -> float:
    """Return a rank's `staleness_max` in its interval of that number."""
    return float((3 * rank + number) % 8)


@dataclass(frozen=True)
class Interval:
    """One record: a rank's, or the sums over the ranks."""

    time: float
    """Seconds since the epoch."""
    step: int
    sums: dict[str, list[float]]
    largest: dict[str, tuple[float, int]] = field(default_factory=dict)
    """The largest value of a rank, and which one has it."""

    def __getitem__(self, measure: str) -> float:
        return self.sums[measure][0]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of a run.

    Args:
        run: The run's id.
        began: Seconds since the epoch.
        every: Seconds between two log steps.
        records: Log steps.
        ranks: The world size.
        first: The step that it resumes at.
        stride: Steps between two log steps.
        dropped: Records of the last rank that are lost, and as many points refused: at first, and in the middle.
        clock: Seconds that the last rank's clock is ahead of its receiver's.
    """

    run: str
    began: float
    every: float
    records: int
    ranks: int = 2
    first: int = 0
    stride: int = 1
    dropped: tuple[int, int] = (0, 0)
    clock: float = 0.0

    @property
    def number(self) -> int:
        """The attempt's number, and label."""
        return round(self.began * 1000)

    @property
    def last(self) -> float:
        """Time of its last record."""
        return self.time(self.records - 1)

    def time(self, number: int) -> float:
        """Return the time of an interval's end: the first one takes longer."""
        return round(self.began + (2 + number) * self.every, 3)

    @cached_property
    def of_rank(self) -> list[list[Interval]]:
        """The intervals of each rank."""
        return [
            [
                Interval(
                    self.time(number),
                    self.first + (number + 1) * self.stride,
                    measured(rank, number, self.stride),
                    {rows.STALENESS_MAX.name: (oldest_reader(rank, number), 0)},
                )
                for number in range(self.records)
            ]
            for rank in range(self.ranks)
        ]

    @cached_property
    def cluster(self) -> list[Interval]:
        """The intervals of all ranks together."""
        made = []
        for number, own in enumerate(self.of_rank[0]):
            sums: defaultdict[str, list[float]] = defaultdict(list)
            largest: dict[str, tuple[float, int]] = {}
            for rank in range(self.ranks):
                values = self.of_rank[rank][number].sums
                for name, numbers in values.items():
                    sums[name] = [sum(pair) for pair in zip(sums[name] or [0.0] * len(numbers), numbers, strict=True)]
                peaks = {name: value for name, (value, _) in self.of_rank[rank][number].largest.items()}
                peaks |= {row.name: values[row.name][0] for row in LEDGER if row.with_max}
                for name, value in peaks.items():
                    largest[name] = max(largest.get(name, (-1.0, 0)), (value, -rank))
            named = {name: (value, -rank) for name, (value, rank) in largest.items()}
            made.append(Interval(own.time, own.step, dict(sums), named))
        return made

    def live_times(self) -> list[float]:
        """Return the times at which the sidecar tells of the ranks' state."""
        interval = max(LIVE_INTERVAL, (self.last - self.began) / 1024)
        return [self.began + interval * number for number in range(1, int((self.last - self.began) / interval) + 1)]

    def dropped_at(self, moment: float) -> int:
        """Return how many records of the last rank are lost at a time."""
        first, later = self.dropped
        return first + (later if moment >= (self.began + self.last) / 2 else 0)

    def write(self, folder: Path) -> list[RingWriter]:
        """Write the ranks' rings, as ranks do that reduce with each other, and return them: they are open."""
        rings = []
        for rank in range(self.ranks):
            identity = Identity(
                run_id=self.run, attempt=self.number, rank=rank, world_size=self.ranks, host=f"node{rank // 8}"
            )
            ring = RingWriter(ring_path(folder, identity), SCHEMA, identity, records=2 * self.records + 8)
            ring.enter(Phase.COMPUTE)
            for own, cluster in zip(self.of_rank[rank], self.cluster, strict=True):
                stamp = round(own.time * 1000) * 10**6
                ring.write(own.step, stamp, Kind.RANK, packed(own.sums, own.largest))
                if rank == 0:
                    ring.write(cluster.step, stamp, Kind.CLUSTER, packed(cluster.sums, cluster.largest))
            rings.append(ring)
        return rings


def packed(sums: dict[str, list[float]], largest: dict[str, tuple[float, int]]) -> list[float]:
    """Return a record's values: the sums, the peaks, and the peaks' ranks."""
    flat, peaks, ranks = [0.0] * LAYOUT.sums, [0.0] * LAYOUT.peaks, [0.0] * LAYOUT.peaks
    for name, index in LAYOUT.offsets.items():
        numbers = sums.get(name, [0.0])
        flat[index : index + len(numbers)] = numbers
    for name, index in LAYOUT.peak_offsets.items():
        value, rank = largest.get(name) or (sums[name][0], 0)
        peaks[index], ranks[index] = value, float(rank)
    return [*flat, *peaks, *ranks]


@dataclass
class Unanswered:
    """An exporter whose receiver takes everything, and whose answers are lost."""

    exporter: Exporter

    def send(self, body: bytes) -> Answer:
        """Send a request."""
        assert self.exporter.send(body).taken
        return Answer(verdict=Verdict.WAIT, cause="lost", unanswered=True)


def send_runs(folder: Path, attempts: Sequence[Attempt], *, twice: bool = False) -> None:
    """Write the attempts' rings, and send them as sidecars would have that ran beside them.

    What tells of a rank's state bears the times at which it would have been sent. Then a sidecar sends each log step of
    each rank, and leaves when all is delivered.

    Args:
        folder: Where the rings are made.
        attempts: The attempts.
        twice: Whether a sidecar had sent the first part already, and was killed before the answer.
    """
    folder.mkdir()
    rings = [ring for attempt in attempts for ring in attempt.write(folder)]
    exporter = Exporter()
    for attempt in attempts:
        _send_states(folder, attempt, exporter)
    if twice:
        sender(Unanswered(exporter), folder).send_all(feeds(folder))
    exporter.close()
    for ring in rings:
        ring.close(1, time.time_ns())
        ring.release()
    sidecar = Sidecar(folder, rank_interval=0.0, grace=300.0)
    sidecar.wind_up()
    sidecar.run()


def _send_states(folder: Path, attempt: Attempt, exporter: Exporter) -> None:
    lives = []
    for path in sorted(ring_files(folder)):
        reader = RingReader(path)
        if reader.identity.attempt == attempt.number and reader.identity.run_id == attempt.run:
            origin = Origin(reader.identity, reader.layout)
            lives.append((reader.identity.rank, LivePoints(reader, origin, interval_ns=0, restarts=0)))
    bodies: list[bytes] = []
    for moment in attempt.live_times():
        for rank, live in lives:
            dropped = attempt.dropped_at(moment) if rank == attempt.ranks - 1 else 0
            refused = ((str(Refusal.REJECTED), 0), *(((REASON, dropped),) if dropped else ()))
            counts = SendingCounts(dropped, refused, 0, 0, exit_code=None)
            stamp = round(moment * 1000) * 10**6
            points = live.make(counts, stamp, ended=False)
            if rank == attempt.ranks - 1:
                points.add_pipeline(rows.CLOCK_OFFSET, stamp, attempt.clock, Reference.RECEIVER)
            bodies += [part.body for part in points.parts(2**20)]
        if len(bodies) >= 256 or moment == attempt.live_times()[-1]:
            answer = exporter.send(b"".join(bodies))
            assert answer.taken, answer
            bodies = []
