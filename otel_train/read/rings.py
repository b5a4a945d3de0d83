"""Read a job's rings on this node, live or after a crash, without changing anything of the job."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from otel_train.catalogue import Phase, rows
from otel_train.exceptions import OtelTrainError, RingError
from otel_train.printable import printable
from otel_train.read.history import History, MixInterval, Track
from otel_train.ring import Identity, Kind, Record, RingReader, is_stopped, ring_files

READ_AT_ONCE = 4096
MOST_RANKS = 1 << 20
"""Bound on a job's ranks, whatever a ring claims."""


class RankStatus(StrEnum):
    """Whether a rank goes on and, if not, how it ended."""

    LIVE = "live"
    ENDED = "ended"
    """Its session was closed."""
    FAILED = "failed"
    """Its session was closed by an exception."""
    DIED = "died"
    """Its process is gone and has not closed its session."""


@dataclass(frozen=True, slots=True)
class RankState:
    """The present state of one rank."""

    identity: Identity
    step: int
    """The last step that it ended."""
    step_time_ns: int
    """When it ended that step, nanoseconds since the epoch."""
    phase: Phase | None
    """Activity of its training thread; None for one that only another release has."""
    phase_time_ns: int
    """When that phase began, nanoseconds since the epoch."""
    lives: bool
    """Whether its process lives."""
    closed: bool
    """Whether it ended its session itself."""
    abandoned: int
    """Reductions that it has thrown away."""
    dropped: int
    """Records that were overwritten before the sidecar had read them."""
    refused: int
    """Points that the receiver refused for good."""
    unsent: int
    """Records that no receiver has acknowledged yet."""
    pid: int = 0
    """Process id, as the process itself sees it."""
    error: str = ""
    """Name of the exception that it ended its session with."""
    stopped: bool = False
    """Whether the process is stopped, by SIGSTOP or a debugger, as far as it can be seen from here."""

    @property
    def status(self) -> RankStatus:
        """Whether it goes on and, if not, how it ended."""
        if self.closed:
            return RankStatus.FAILED if self.error else RankStatus.ENDED
        return RankStatus.LIVE if self.lives else RankStatus.DIED


class RankRing:
    """One rank's ring, read from where the last call ended."""

    def __init__(self, path: Path) -> None:
        self.reader = RingReader(path)
        self.identity = self.reader.identity
        self._position = 0
        self.lost = 0
        """Records that were overwritten before they were read."""
        self.selected: tuple[int, ...] | None = None
        """Indices of the series that are read, where only some are."""

    def records(self, newest: int | None = None) -> Iterator[Record]:
        """Yield the records since the last call, or only so many of the newest among them."""
        if newest is not None:
            self._position = max(self._position, self.reader.progress.written - newest)
        while True:
            records, self._position, lost = self.reader.read(self._position, READ_AT_ONCE)
            self.lost += lost
            yield from records
            if len(records) + lost < READ_AT_ONCE:
                return

    def state(self) -> RankState:
        """Return the rank's present state."""
        progress, cursor = self.reader.progress, self.reader.cursor
        phase, since = self.reader.phase
        return RankState(
            identity=self.identity,
            step=progress.step,
            step_time_ns=progress.time_ns,
            phase=phase,
            phase_time_ns=since,
            lives=self.reader.writer_lives,
            closed=progress.closed,
            abandoned=progress.abandoned,
            dropped=cursor.dropped,
            refused=cursor.refused,
            unsent=max(0, progress.written - cursor.position),
            pid=self.reader.header.pid,
            error=printable(self.reader.error),
            stopped=is_stopped(self.reader.header.pid, self.reader.header.pid_start),
        )


class RingJob:
    """The newest attempt of the job whose rings are in a directory; `refresh` reads on, also into a newer attempt.

    Args:
        directory: The directory of the rings.
        newest: Number of each ring's newest records that are read, and of their steps that are kept; None for all
            that the rings hold, and for all that come.
        rank_keys: The wandb keys of the ranks' own values that are read; the picks of each interval and the reuse
            distances are left out then. None for everything.

    Raises:
        OtelTrainError: There is no such directory, or no ring in it that can be read.
    """

    def __init__(self, directory: Path, *, newest: int | None = None, rank_keys: Collection[str] | None = None) -> None:
        self.directory = directory
        self._newest = newest
        self._rank_keys = rank_keys
        self.rings: dict[int, RankRing] = {}
        """By rank."""
        self.damaged: dict[Path, str] = {}
        """The reason, by ring that could not be read."""
        self.attempt = 0
        self._open: dict[Path, RankRing | None] = {}
        self._counts: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        """Each rank's decayed counts and targets at its last record."""
        self._mix: dict[int, dict[int, MixInterval]] = {}
        """By step and rank."""
        self.history = History(str(directory), "")
        if not directory.is_dir():
            raise OtelTrainError(f"{directory} is not a directory; give OTEL_TRAIN_RING_DIR's, or look into /dev/shm")
        self.refresh()
        if not self.rings:
            why = next(iter(self.damaged.values()), "no rank has ended a step yet, or it is another directory")
            raise OtelTrainError(f"{directory} holds no ring that can be read: {why}")

    def refresh(self) -> None:
        """Read the records since the last call."""
        for path in ring_files(self.directory):
            if path not in self._open:
                self._add(path)
        newest = max((ring.identity.attempt for ring in self._open.values() if ring is not None), default=0)
        if newest != self.attempt:
            self._begin(newest)
        for path, ring in self._open.items():
            if ring is not None and ring.identity.attempt == self.attempt:
                self.rings.setdefault(ring.identity.rank, ring)
                try:
                    for record in ring.records(self._newest):
                        self._take(ring.identity.rank, ring, record)
                except RingError as error:
                    self.damaged[path] = str(error)
                except (ArithmeticError, ValueError) as error:
                    self.damaged[path] = f"{path} is damaged: its values mean nothing ({error!s:.100}); move it away"
        self._leave_out()
        self._sum_up()

    def _leave_out(self) -> None:
        """Drop the rings that turned out to be damaged, and the steps that are too old."""
        for path in self.damaged:
            ring = self._open[path]
            if ring is not None:
                self._open[path] = None
                if self.rings.get(ring.identity.rank) is ring:
                    del self.rings[ring.identity.rank]
                ring.reader.close()
        if self._newest is not None:
            for track in (self.history.cluster, *self.history.ranks.values()):
                track.keep(self._newest)
            for step in sorted(self._mix)[: -self._newest]:
                del self._mix[step]

    def _add(self, path: Path) -> None:
        try:
            self._open[path] = RankRing(path)
        except RingError as error:
            self._open[path] = None
            self.damaged[path] = str(error)

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        of_attempt = [ring for ring in self._open.values() if ring is not None and ring.identity.attempt == attempt]
        self.rings = {ring.identity.rank: ring for ring in of_attempt}
        first = of_attempt[0]
        self._counts.clear()
        self._mix.clear()
        self.history = History(
            source=f"the rings in {self.directory}",
            run_id=first.identity.run_id,
            world_size=first.identity.world_size,
            modalities=first.reader.schema.modalities,
            facts=dict(first.reader.facts),
        )

    def _take(self, rank: int, ring: RankRing, record: Record) -> None:
        layout = ring.reader.layout
        sums, peaks, peak_ranks = layout.split(record.values)
        if record.kind is Kind.CLUSTER:
            self.history.cluster.add(record.step, record.time_ns, layout.by_key(sums, peaks, peak_ranks))
            return
        track = self.history.ranks.setdefault(rank, Track())
        if self._rank_keys is not None:
            if ring.selected is None:
                ring.selected = layout.indices_of(self._rank_keys)
            track.add(record.step, record.time_ns, layout.some_by_key(ring.selected, sums, peaks))
            return
        track.add(record.step, record.time_ns, layout.by_key(sums, peaks))
        [measure] = rows.REUSE_DISTANCE.measures
        start = layout.offsets.get(measure.name)
        if start is not None:
            reuse = sums[start : start + measure.size]
            before = self.history.reuse or (0.0,) * measure.size
            self.history.reuse = tuple(a + b for a, b in zip(before, reuse, strict=True))
        if all(measure.name in layout.offsets for measure in (rows.PICK_COUNT, *rows.MIX_DIVERGENCE.measures)):
            self._take_mix(rank, ring, record, sums)

    def _take_mix(self, rank: int, ring: RankRing, record: Record, sums: Sequence[float]) -> None:
        """Undo the decay: the picks are the growth of the counts since the record before."""
        layout = ring.reader.layout
        width = len(layout.modalities)
        at = [layout.offsets[measure.name] for measure in rows.MIX_DIVERGENCE.measures]
        counts, targets = (tuple(sums[start : start + width]) for start in at)
        before = self._counts.get(rank)
        self._counts[rank] = counts, targets
        picks = sums[layout.offsets[rows.PICKS.name]]
        horizon = ring.reader.facts.get("mixing.horizon")
        if before is None or not picks or not isinstance(horizon, int | float) or not horizon > 0:
            return
        keep = math.exp(-picks / horizon)
        new = tuple(max(0.0, round(now - old * keep)) for now, old in zip(counts, before[0], strict=True))
        aims = [max(0.0, now - old * keep) for now, old in zip(targets, before[1], strict=True)]
        total = math.fsum(aims)
        # Where records in between were overwritten, the counts before are not those of the record before.
        if total > 0 and math.fsum(new) == picks:
            shares = tuple(aim / total for aim in aims)
            self._mix.setdefault(record.step, {})[rank] = MixInterval(record.step, new, shares)

    def _sum_up(self) -> None:
        """Join the ranks' picks, and the counts of losses in the rings."""
        self.history.mix = [
            _joined(step, list(by_rank.values())) for step, by_rank in sorted(self._mix.items()) if by_rank
        ]
        states = [ring.state() for ring in self.rings.values()]
        self.history.dropped = float(sum(state.dropped for state in states))
        self.history.refused = float(sum(state.refused for state in states))
        self.history.abandoned = float(max((state.abandoned for state in states), default=0))

    def states(self) -> list[RankState]:
        """Return the state of each rank, in the order of ranks."""
        return [ring.state() for _, ring in sorted(self.rings.items())]

    @property
    def missing(self) -> list[int]:
        """Ranks of the job without a ring here: they are on other nodes, or never ended a step."""
        return [rank for rank in range(min(self.history.world_size, MOST_RANKS)) if rank not in self.rings]

    def close(self) -> None:
        """Release the mappings."""
        for ring in self._open.values():
            if ring is not None:
                ring.reader.close()


def _joined(step: int, intervals: Sequence[MixInterval]) -> MixInterval:
    """Add up the ranks' picks; the shares are those of all picks together."""
    totals = [sum(interval.picks) for interval in intervals]
    picks = tuple(map(sum, zip(*(interval.picks for interval in intervals), strict=True)))
    everything = sum(totals) or 1.0
    weighted = [[share * total for share in interval.shares] for interval, total in zip(intervals, totals, strict=True)]
    return MixInterval(step, picks, tuple(sum(column) / everything for column in zip(*weighted, strict=True)))
