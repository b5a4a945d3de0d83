"""Write rings as the ranks of a node do, at an even pace or all at once; run by the sidecar's benchmark.

python -m benchmarks.paced_rings DIRECTORY --rings 8 --steps 2000 --rate 100 [--jobs]
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from otel_train.catalogue import LEDGER, MIXING
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_path

SCHEMA = Schema(MIXING + LEDGER, ("code", "prose"))
VALUES = len(SCHEMA.layout().series)
"""Of a record; a cluster record goes out with two points more, its step and its number of points."""


def make(directory: Path, rank: int, *, jobs: bool, rings: int) -> RingWriter:
    """Make one rank's ring: a rank of one job, or the only one of a job of its own."""
    run = f"bench-{rank}" if jobs else "bench"
    identity = Identity(run_id=run, attempt=int(time.time() * 1000), rank=rank, world_size=rings)
    return RingWriter(ring_path(directory, identity), SCHEMA, identity)


def record(width: int, step: int) -> list[float]:
    """Return a record's values: counts, so whole numbers, another set at each step."""
    numbers = random.Random(step)
    return [float(numbers.randrange(1, 1000)) for _ in range(width)]


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rings", type=int, default=8)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="steps a second of each ring; 0: as fast as it goes")
    parser.add_argument("--jobs", action="store_true", help="each ring is a job's of its own, with cluster records")
    arguments = parser.parse_args()
    rings = [
        make(arguments.directory, rank, jobs=arguments.jobs, rings=arguments.rings) for rank in range(arguments.rings)
    ]
    # Made beforehand: the writer must not take the processor that the sidecar is measured on.
    values = [record(rings[0].geometry.values, step) for step in range(256)]
    begin = time.monotonic()
    for step in range(1, arguments.steps + 1):
        for rank, ring in enumerate(rings):
            # A rank's own record and the cluster's of the same step share their time stamp.
            now = time.time_ns()
            ring.write(step, now, Kind.RANK, values[step % len(values)])
            if arguments.jobs or rank == 0:
                ring.write(step, now, Kind.CLUSTER, values[step % len(values)])
        if arguments.rate:
            time.sleep(max(0.0, begin + step / arguments.rate - time.monotonic()))
    for ring in rings:
        ring.close(arguments.steps, time.time_ns())


if __name__ == "__main__":
    main()
