"""Rings of a job as its ranks would have written them, for tests of readers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from otel_train.catalogue import LEDGER, MIXING, TIMING, Metric, Reduction, rows
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_path

MODALITIES = ("code", "prose")
SECOND = 10**9
SCHEMA = Schema((*MIXING, *LEDGER, *TIMING, Metric("train/loss"), Metric("peak", Reduction.MAX)), MODALITIES)
ATTEMPT = 1_700_000_000_000
EVICTIONS = rows.EVICTIONS.measures[0].name
HEALTHY = {
    rows.PICK_COUNT.name: 4.0,
    rows.ACTIVE_COUNT.name: 4.0,
    rows.SWITCH_COUNT.name: 2.0,
    rows.PAIR_COUNT.name: 4.0,
    "train.step.seconds": 0.1,
    "train.step.count": 1.0,
    "train/loss:total": 0.5,
    "train/loss:count": 1.0,
}


class FakeRank:
    """One rank's ring, and, for rank 0, the cluster's values in it."""

    def __init__(self, directory: Path, rank: int, world_size: int, attempt: int = ATTEMPT, *, name: str = "") -> None:
        schema = Schema(SCHEMA.metrics, (name or MODALITIES[0], MODALITIES[1]))
        identity = Identity(
            run_id=name or "run",
            attempt=attempt,
            rank=rank,
            world_size=world_size,
            host=name or f"node{rank // 8}",
        )
        self.layout = schema.layout()
        self.ring = RingWriter(ring_path(directory, identity), schema, identity, records=64)

    def write(
        self,
        step: int,
        kind: Kind = Kind.RANK,
        values: Mapping[str, float] | None = None,
        *,
        staleness: float = 1.0,
        staleness_rank: int = 0,
    ) -> None:
        """Write the values of a healthy step, a second after the one before, with some of them replaced."""
        layout = self.layout
        sums, peaks, ranks = [0.0] * layout.sums, [0.0] * layout.peaks, [0.0] * layout.peaks
        for name, value in {**HEALTHY, **(values or {})}.items():
            sums[layout.offsets[name]] = value
        for counts in (rows.DECAYED_COUNTS, rows.DECAYED_TARGETS):
            start = layout.offsets[counts.name]
            sums[start : start + 2] = [3.0, 1.0]
        index = layout.peak_offsets[rows.STALENESS_MAX.name]
        peaks[index], ranks[index] = staleness, staleness_rank
        self.ring.write(step, ATTEMPT * 10**6 + step * SECOND, kind, [*sums, *peaks, *ranks])


def write_job(directory: Path, ranks: int, steps: int, *, starved: int | None = None, name: str = "") -> list[FakeRank]:
    """Write a job in which one rank may have a reader that is never picked."""
    writers = [FakeRank(directory, rank, ranks, name=name) for rank in range(ranks)]
    for step in range(1, steps + 1):
        for rank, writer in enumerate(writers):
            writer.write(step, staleness=step if rank == starved else rank / 100)
        writers[0].write(step, Kind.CLUSTER, staleness=1 if starved is None else step, staleness_rank=starved or 0)
    return writers
