"""Read a job's rings on this node, live or after a crash, without changing anything of the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from otel_train.catalogue import rows
from otel_train.exceptions import OtelTrainError, RingError
from otel_train.how_far import tell
from otel_train.read.history import History, MixInterval, Track, clock_name
from otel_train.read.interval_picks import IntervalPicks
from otel_train.read.rank_ring import RankRing, RankState, RankStatus
from otel_train.ring import Kind, Record, ring_files


class OtherRunError(OtelTrainError, LookupError):
    """A directory has rings, of other runs than the one that was asked for."""


class RingJob:
    """The newest attempt of the job whose rings are in a directory; `refresh` reads on, also into a newer attempt.

    Args:
        directory: The directory of the rings.
        newest: Number of each ring's newest records that are read, and of their steps that are kept; None for all
            that the rings hold, and for all that come.
        rank_keys: The wandb keys of the ranks' own values that are read; the picks of each interval and the reuse
            distances are left out then. None for everything.
        run: The run's id, where jobs share a directory; empty for the newest run.

    Raises:
        OtherRunError: None of the rings in the directory is of the run.
        OtelTrainError: There is no such directory, or no ring in it that can be read.
    """

    def __init__(
        self,
        directory: Path,
        *,
        newest: int | None = None,
        rank_keys: Collection[str] | None = None,
        run: str = "",
    ) -> None:
        self.directory = directory
        self._run = run
        self._other_runs: set[str] = set()
        self._newest = newest
        self._rank_keys = rank_keys
        self.rings: dict[int, RankRing] = {}
        """By rank."""
        self.damaged: dict[Path, str] = {}
        """The reason, by ring that could not be read."""
        self.attempt = 0
        self.last_states: list[RankState] = []
        """State of each rank when its ring was read last, in the order of ranks."""
        self._open: dict[Path, RankRing | None] = {}
        self._picks = IntervalPicks()
        self.history = History(str(directory), "")
        if not directory.is_dir():
            raise OtelTrainError(f"{directory} is not a directory; give OTEL_TRAIN_RING_DIR's, or look into /dev/shm")
        self.refresh()
        if not self.rings and self._other_runs:
            raise OtherRunError(
                f"{directory} holds {', '.join(sorted(self._other_runs))}, not run {run}; give one as --run"
            )
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
        for number, (path, ring) in enumerate(self._open.items()):
            tell("rings read", number, len(self._open))
            if ring is not None and ring.identity.attempt == self.attempt:
                self.rings.setdefault(ring.identity.rank, ring)
                try:
                    self.read_ring(ring)
                except RingError as error:
                    self.damaged[path] = str(error)
                except (ArithmeticError, ValueError) as error:
                    self.damaged[path] = f"{path} is damaged: its values mean nothing ({error!s:.100}); move it away"
        tell("rings read", 1, 1)
        self._leave_out()
        self._sum_up()

    def read_ring(self, ring: RankRing) -> None:
        """Read one ring's records since the last call."""
        rank = ring.identity.rank
        if self._newest is not None and self._rank_keys is not None and rank not in self.history.ranks:
            track = ring.newest_values(self._newest, self._rank_keys)
            if track is not None and track.steps:
                self.history.ranks[rank] = track
        for record in ring.records(self._newest):
            self._take(rank, ring, record)

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
            self._picks.keep(self._newest)

    def _add(self, path: Path) -> None:
        self._open[path] = None
        try:
            ring = RankRing(path)
        except RingError as error:
            self.damaged[path] = str(error)
            return
        if self._run in ("", ring.identity.run_id):
            self._open[path] = ring
        else:
            self._other_runs.add(ring.identity.run_id)
            ring.reader.close()

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        of_attempt = [ring for ring in self._open.values() if ring is not None and ring.identity.attempt == attempt]
        self.rings = {ring.identity.rank: ring for ring in of_attempt}
        first = of_attempt[0]
        schema = first.reader.schema
        self._picks = IntervalPicks()
        self.history = History(
            source=f"the rings in {self.directory}",
            run_id=first.identity.run_id,
            world_size=first.identity.world_size,
            modalities=schema.modalities if rows.MODALITY_SHARE in schema.metrics else (),
            sources=schema.modalities,
            facts=dict(first.reader.facts),
        )

    def _take(self, rank: int, ring: RankRing, record: Record) -> None:
        track = self.history.cluster
        if record.kind is Kind.RANK:
            track = self.history.ranks.setdefault(rank, Track())
        if record.logged:
            # Those of the newest steps only, where older ones are forgotten.
            if self._newest is None or (track.steps and record.step >= track.steps[0]):
                track.merge(record.step, record.time_ns, self._selected(ring, record))
            return
        track.add(record.step, record.time_ns, self._selected(ring, record))
        if record.kind is Kind.CLUSTER or self._rank_keys is not None:
            return
        layout = record.layout
        sums, _, _ = layout.split(record.values)
        [measure] = rows.REUSE_DISTANCE.measures
        start = layout.offsets.get(measure.name)
        if start is not None:
            reuse = sums[start : start + measure.size]
            before = self.history.reuse or (0.0,) * measure.size
            self.history.reuse = tuple(a + b for a, b in zip(before, reuse, strict=True))
        self._picks.add(rank, record.step, layout, sums, ring.reader.facts)

    def _selected(self, ring: RankRing, record: Record) -> dict[str, float]:
        if self._rank_keys is None or record.kind is Kind.CLUSTER:
            return record.by_key()
        sums, peaks, _ = record.layout.split(record.values)
        return record.layout.some_by_key(ring.selected(record.layout, self._rank_keys), sums, peaks)

    def _sum_up(self) -> None:
        """Join the ranks' picks, and the counts of losses in the rings."""
        self.history.mix, self.history.order_groups = self.joined_picks()
        self.last_states = states = self.states()
        self.history.dropped = float(sum(state.dropped for state in states))
        self.history.refused = float(sum(state.refused for state in states))
        refusals = Counter[str]()
        for state in states:
            refusals.update(state.refusals)
        self.history.refusals = {reason: float(count) for reason, count in refusals.items()}
        for ring in self.rings.values():
            offset = ring.clock_offset
            if offset is not None and offset.wrong:
                self.history.wrong_clocks[clock_name(ring.identity.rank, ring.identity.host)] = offset.seconds
        self.history.abandoned = float(max((state.abandoned for state in states), default=0))

    def joined_picks(self) -> tuple[Sequence[MixInterval], tuple[tuple[int, ...], ...]]:
        """Return the picks of all ranks that draw for themselves, interval by interval, and the groups of ranks."""
        return self._picks.joined()

    def states(self) -> list[RankState]:
        """Return the state of each rank, in the order of ranks."""
        return [ring.state() for _, ring in sorted(self.rings.items())]

    def rivals(self) -> list[RankState]:
        """Return the states of ranks of earlier attempts that go on: of another job, which writes the same run.

        A process may leave a session open and begin another one.
        """
        own = {(ring.identity.host, ring.reader.header.pid) for ring in self.rings.values()}
        states = []
        for ring in self._open.values():
            if ring is None or ring.identity.attempt >= self.attempt or ring.identity.run_id != self.history.run_id:
                continue
            if (ring.identity.host, ring.reader.header.pid) not in own:
                with suppress(RingError):  # a damaged one of an earlier attempt is nobody's concern
                    states.append(ring.state())
        return [state for state in states if state.status is RankStatus.LIVE]

    def close(self) -> None:
        """Release the mappings."""
        for ring in self._open.values():
            if ring is not None:
                ring.reader.close()
