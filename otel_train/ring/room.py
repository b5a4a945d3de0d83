"""Make a ring that takes no more than its part of the memory that is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_train.exceptions import RingError
from otel_train.ring.directory import prepare_directory
from otel_train.ring.layout import Geometry
from otel_train.ring.schema import Fact, Identity, Schema, dump_schema
from otel_train.ring.writer import RingWriter

FEWEST_RECORDS = 64
"""A ring of fewer would not bridge the restart of a receiver."""
FREE_SHARE = 0.25
"""Of what is free, for the rings of all ranks of a machine together: the batches of loaders are there too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSize:
    """How large a ring may be: as many records as fit all of these, but not fewer than `FEWEST_RECORDS`."""

    records: int = 4096
    """Records that it holds at most."""
    max_bytes: int = 16 * 2**20
    """Bytes that it takes at most."""
    sharers: int = 1
    """Ranks of the machine, which share what is free."""

    def fit(self, geometry: Geometry, directory: Path) -> int:
        """Return how many records the ring in a directory holds, whose geometry is that of `records` of them."""
        budget = min(self.max_bytes, FREE_SHARE * _free_bytes(directory) / self.sharers)
        fitting = int(budget - geometry.header_size) // geometry.record_size
        return min(self.records, max(FEWEST_RECORDS, fitting))


def make_ring(
    path: Path, schema: Schema, identity: Identity, *, size: RingSize, facts: Mapping[str, Fact] | None = None
) -> RingWriter:
    """Make a ring, or, where it does not fit all the same, one of a quarter, a sixteenth … of its records.

    Raises:
        RingError: See `RingWriter`; also the smallest one does not fit.
    """
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
    """Return what is free where a directory is; infinite where the file system has no bound."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return float("inf")
    return float(status.f_bavail * status.f_frsize) if status.f_blocks else float("inf")
