"""Read a job's rings once, wholly: for each value a pass over the ring when it is asked for, instead of all in memory.

`RingJob` follows rings record by record; this gives the same history, in memory and time that a ring of a million steps
takes for a few columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from otel_train.catalogue import rows
from otel_train.how_far import tell
from otel_train.read.history import MixInterval
from otel_train.read.pick_columns import PickColumns
from otel_train.read.rank_ring import RankRing
from otel_train.read.ring_track import ring_track
from otel_train.read.rings import RingJob
from otel_train.ring import Kind, Record
from otel_train.ring.columns import Heads, RingColumns

_AT_ONCE = 1 << 13
"""Records whose reuse distances are read together: their columns stay in a core's cache."""
_MOST_KEPT = 96 << 20
"""Bytes of rings up to which short ones stay in this process's memory from one column to the next: the kernel takes
longer to bring a page back than a column of it to read."""


class WholeRings(RingJob):
    """The newest attempt of the job whose rings are in a directory, as it is now.

    Args:
        directory: The directory of the rings.
        run: As for `RingJob`.

    Raises:
        OtherRunError: None of the rings in the directory is of the run.
        OtelTrainError: There is no such directory, or no ring in it that can be read.
    """

    def __init__(self, directory: Path, run: str = "") -> None:
        self._columns = PickColumns()
        self._kept = 0
        """Bytes of the rings that were read."""
        self.is_plain = True
        """Whether each ring's steps grow, and one has the cluster's; `RingJob` reads others."""
        super().__init__(directory, run=run)

    def refresh(self) -> None:
        """Read all records anew."""
        self._columns, self.is_plain, self._kept = PickColumns(), True, 0
        super().refresh()

    def read_ring(self, ring: RankRing) -> None:
        """Find the records of one ring, and read its picks."""
        columns = RingColumns(ring.reader)
        columns.keep()
        self._read_columns(ring, columns)
        self._kept += ring.reader.geometry.file_size
        if self._kept > _MOST_KEPT:
            columns.release()

    def _read_columns(self, ring: RankRing, columns: RingColumns) -> None:
        heads, rank, history = columns.heads(), ring.identity.rank, self.history
        own = ring_track(columns, heads.rank, _late(ring, heads.late, Kind.RANK), with_ranks=False)
        cluster = ring_track(columns, heads.cluster, _late(ring, heads.late, Kind.CLUSTER), with_ranks=True)
        if own is None or cluster is None or (cluster.steps and history.cluster.steps) or rank in history.ranks:
            self.is_plain = False
            return
        if cluster.steps:
            history.cluster = cluster
        if own.steps:
            history.ranks[rank] = own
        self._columns.add(rank, columns, heads.rank, ring.reader.facts)
        self._add_reuse(columns, heads.rank)

    def _add_reuse(self, columns: RingColumns, heads: Heads) -> None:
        [measure] = rows.REUSE_DISTANCE.measures
        start = columns.reader.base_layout.offsets.get(measure.name)
        if start is None or not heads.steps:
            return
        indices = range(start, start + measure.size)
        sums = [0.0] * measure.size
        for begin in range(0, len(heads.sequences), _AT_ONCE):
            part = columns.columns(heads.sequences[begin : begin + _AT_ONCE], indices)
            sums = [sum(column, total) for column, total in zip(part, sums, strict=True)]
            tell("reuse distances read", begin + _AT_ONCE, len(heads.sequences))
        before = self.history.reuse or (0.0,) * measure.size
        self.history.reuse = tuple(a + b for a, b in zip(before, sums, strict=True))

    def joined_picks(self) -> tuple[Sequence[MixInterval], tuple[tuple[int, ...], ...]]:
        """Return the picks of all ranks that draw for themselves, interval by interval, and the groups of ranks."""
        return self._columns.joined()


def read_rings(directory: Path, run: str = "") -> RingJob:
    """Read the newest attempt of a job.

    Args:
        directory: The directory of its rings.
        run: The run's id, where jobs share a directory; empty for the newest run.

    Raises:
        OtherRunError: None of the rings in the directory is of the run.
        OtelTrainError: There is no such directory, or no ring in it that can be read.
    """
    whole = WholeRings(directory, run)
    if whole.is_plain:
        return whole
    whole.close()
    return RingJob(directory, run=run)


def _late(ring: RankRing, sequences: Iterable[int], kind: Kind) -> Iterator[Record]:
    """Yield the records of a kind with late values."""
    for sequence in sequences:
        record = ring.reader.record(sequence)
        if record is not None and record.kind in (kind, Kind.BOTH):
            yield record._replace(kind=kind)
