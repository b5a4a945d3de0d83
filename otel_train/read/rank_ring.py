"""One rank's ring: its records from call to call, and the rank's present state."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from operator import lt
from pathlib import Path

from otel_train.catalogue import Layout, Phase
from otel_train.host_clock import ClockOffset
from otel_train.printable import printable
from otel_train.read.column_values import series_values
from otel_train.read.history import Track
from otel_train.ring import Identity, Record, RingReader
from otel_train.ring.columns import RingColumns

READ_AT_ONCE = 4096


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
    """Time at which it ended that step, nanoseconds since the epoch."""
    phase: Phase | None
    """Activity of its training thread; None for one that only another release has."""
    phase_time_ns: int
    """Time at which that phase began, nanoseconds since the epoch."""
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
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Points that the receiver refused for good, by reason."""
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
        self.clock_offset = ClockOffset.of_facts(self.reader.facts)
        """Offset of its clock against the other ranks' at the first step; None where they did not compare."""
        self._position = 0
        self._indices: tuple[Layout, tuple[int, ...]] | None = None
        """Layout of the newest record, and the indices in it of the series that are read, where only some are."""

    def selected(self, layout: Layout, keys: Collection[str]) -> tuple[int, ...]:
        """Return the indices in a record's layout of the series with these wandb keys, the same at each call."""
        if self._indices is None or self._indices[0] is not layout:
            self._indices = layout, layout.indices_of(keys)
        return self._indices[1]

    def records(self, newest: int | None = None) -> Iterator[Record]:
        """Yield the records since the last call, or only so many of the newest among them."""
        if newest is not None:
            self._position = max(self._position, self.reader.progress.written - newest)
        while True:
            begin = self._position
            records, self._position, _ = self.reader.read(begin, READ_AT_ONCE)
            yield from records
            if self._position - begin < READ_AT_ONCE:
                return

    def newest_values(self, newest: int, keys: Collection[str]) -> Track | None:
        """Return some values of the newest records, read as columns, and go on after them in `records`.

        Args:
            newest: Number of records.
            keys: The wandb keys of the values.

        Returns:
            None where there are others than the rank's own plain ones, or steps don't grow: those need `records`.
        """
        end = self.reader.progress.written
        columns, layout = RingColumns(self.reader), self.reader.base_layout
        heads = columns.heads(max(0, end - newest, end - self.reader.geometry.records), end)
        own = heads.rank
        if heads.late or heads.cluster.steps or not all(map(lt, own.steps, own.steps[1:])):
            return None
        self._position = end
        track = Track(list(own.steps), list(own.times_ns))
        for index in layout.indices_of(keys):
            read = partial(columns.columns, own.sequences)
            column = series_values(layout, index, read, with_ranks=False)
            if not all(map(math.isnan, column)):
                track.values[str(layout.keys[index])] = list(column)
        return track

    def state(self) -> RankState:
        """Return the rank's present state."""
        progress, cursor = self.reader.progress, self.reader.cursor
        phase, since = self.reader.phase
        lives, stopped = self.reader.look_at_writer()
        return RankState(
            identity=self.identity,
            step=progress.step,
            step_time_ns=progress.time_ns,
            phase=phase,
            phase_time_ns=since,
            lives=lives,
            closed=progress.closed,
            abandoned=progress.abandoned,
            dropped=cursor.dropped,
            refused=cursor.refused,
            unsent=max(0, progress.written - cursor.position),
            pid=self.reader.header.pid,
            error=printable(self.reader.error),
            refusals=self.reader.refusals(cursor.refused),
            stopped=stopped,
        )
