"""Make a ring that takes no more than its part of the free memory."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_train.exceptions import RingError
from otel_train.ring.directory import prepare_directory
from otel_train.ring.file_format import Geometry

if TYPE_CHECKING:
    from otel_train.ring.facts import Fact
    from otel_train.ring.schema import Identity, Schema
    from otel_train.ring.writer import RingWriter

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
FEWEST_RECORDS = 64
"""A ring of fewer would not bridge the restart of a receiver."""
USELESS_RECORDS = 8
"""A ring of fewer is not made."""
FREE_SHARE, MOST_SHARE = 0.25, 0.5
"""Shares of the free memory for the rings of all ranks of a machine together: the batches of loaders are there too. The
second is for rings of `FEWEST_RECORDS` records."""


class RingSize(NamedTuple):
    """How large a ring may be: as many records as fit all of these; see `fit`."""

    records: int = 4096
    """Records that it holds at most."""
    max_bytes: int = 16 * 2**20
    """Bytes that it takes at most."""
    sharers: int = 1
    """Ranks of the machine, which share the free memory."""

    def fit(self, geometry: Geometry, directory: Path) -> int:
        """Return how many records a ring in a directory may hold.

        Args:
            geometry: That of a ring of `records` records.
            directory: Where the ring will be.

        Raises:
            RingError: So few would fit next to the rings of the other ranks that the ring would be useless.
        """

        def fitting(budget: float) -> int:
            return int(min(budget, 2**62) - geometry.header_size) // geometry.record_size

        free = _free_bytes(directory) / self.sharers
        least = min(FEWEST_RECORDS, fitting(MOST_SHARE * free))
        records = min(self.records, max(least, fitting(min(self.max_bytes, FREE_SHARE * free))))
        if records < min(self.records, USELESS_RECORDS):
            raise RingError(
                f"a ring in {directory} has no room: {free:.0f} bytes are free for each of {self.sharers} ranks, half "
                f"of which hold {max(0, records)} records of {geometry.record_size} bytes; set OTEL_TRAIN_RING_DIR"
            )
        return records


def make_ring(
    path: Path, schema: Schema, identity: Identity, *, size: RingSize, facts: Mapping[str, Fact] | None = None
) -> RingWriter:
    """Make a ring, or, where it still does not fit, one of a quarter, a sixteenth … of its records.

    Raises:
        RingError: See `RingWriter`; or the smallest one does not fit.
    """
    # Not for the size alone, which the options of a session have.
    from otel_train.ring.schema import dump_schema  # noqa: PLC0415
    from otel_train.ring.writer import RingWriter  # noqa: PLC0415

    if not path.parent.is_dir():  # an empty one may have been cleaned away since the session began
        prepare_directory(path.parent)
    layout = schema.layout()
    encoded = dump_schema(schema, identity, facts or {})
    geometry = Geometry(layout.sums + 2 * layout.peaks, 2 * layout.sums, size.records, len(encoded))
    records = size.fit(geometry, path.parent)
    while True:
        try:
            return RingWriter(path, schema, identity, records=records, facts=facts)
        except RingError as error:
            cause = error.__cause__
            full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or records // 4 < FEWEST_RECORDS:
                raise
        records //= 4


def _free_bytes(directory: Path) -> float:
    """Return the free bytes of a directory's file system, at most a quarter of the memory that the job may use."""
    bound = memory_limit() / 4
    try:
        status = os.statvfs(directory)
    except OSError:
        return bound
    return min(bound, float(status.f_bavail * status.f_frsize)) if status.f_blocks else bound


def memory_limit(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> float:
    """Return how many bytes of memory this process's control groups leave it; infinite where they don't say.

    Files in memory count among them, however large the file system claims to be.
    """
    limit = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                group = root / controllers / path.lstrip("/")
                name = "memory.limit_in_bytes" if controllers else "memory.max"
                for directory in (group, *group.parents):
                    if not directory.is_relative_to(root):
                        break
                    with contextlib.suppress(OSError, ValueError):  # "max" is not a number
                        limit = min(limit, int((directory / name).read_text()))
    return limit
