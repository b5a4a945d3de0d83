"""Rings that a test's own process writes, whose values of step n are all n."""

from __future__ import annotations

from pathlib import Path

from otel_train.catalogue import LEDGER, Metric, Reduction
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_path

IDENTITY = Identity(run_id="run", attempt=5, rank=1, world_size=2, host="here")
SCHEMA = Schema((*LEDGER, Metric("train/loss"), Metric("peak", Reduction.MAX)), ("code",))


def written_ring(directory: Path, steps: int, *, records: int = 8, schema: Schema = SCHEMA) -> RingWriter:
    """Return a ring with a cluster record for each of the steps 1 to `steps`."""
    ring = RingWriter(ring_path(directory, IDENTITY), schema, IDENTITY, records=records)
    for step in range(1, steps + 1):
        ring.write(step, 10 * step, Kind.CLUSTER, [float(step)] * ring.geometry.values)
    return ring
