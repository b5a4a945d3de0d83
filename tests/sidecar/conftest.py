"""Rings that a test fills, and a sidecar in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.catalogue import LEDGER, MIXING
from otel_train.endpoint import Endpoint
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_files, ring_path
from otel_train.sidecar import Sidecar
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.sender import Sender, Sends
from otel_train.testing import OtlpReceiver

SCHEMA = Schema(MIXING + LEDGER, ("code", "prose"))
FIRST_TIME = 1_800_000_000_000_000_000


class Rank:
    """One rank's ring, written by hand: step n has n picks and n evictions."""

    def __init__(self, directory: Path, rank: int = 0, records: int = 64) -> None:
        self.identity = Identity(run_id="run", attempt=7, rank=rank, world_size=2)
        self.ring = RingWriter(ring_path(directory, self.identity), SCHEMA, self.identity, records=records)
        self.layout = SCHEMA.layout()

    def record(self, step: int, kind: Kind = Kind.CLUSTER) -> None:
        """Write one record, a second after the one before."""
        sums = [0.0] * self.layout.sums
        sums[self.layout.offsets["stream_mixing.picks"]] = sums[self.layout.offsets["ledger.evictions"]] = step
        values = sums + [1.0] * (2 * self.layout.peaks)
        self.ring.write(step, FIRST_TIME + step * 1_000_000_000, kind, values)

    def acknowledged(self) -> bool:
        """Tell whether the sidecar has noted that all was acknowledged: killed before that, it sends some again."""
        return self.ring.acknowledged == self.ring.written


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    """Return rank 0 with an empty ring."""
    return Rank(tmp_path)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
    """Return a receiver that the environment names; the test starts it."""
    made = OtlpReceiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{made.address}")
    return made


def feeds(directory: Path, rank_interval: float = 0.0) -> dict[Path, RingFeed]:
    """Return the feeds of a directory's rings, as a sidecar that has just begun has them."""
    return {path: RingFeed(path, rank_interval) for path in ring_files(directory)}


def sender(exporter: Sends, directory: Path) -> Sender:
    """Return what sends them by an exporter."""
    return Sender(exporter, Announcer(directory, Endpoint()), lambda _: contextlib.nullcontext())


@contextlib.contextmanager
def serving(directory: Path, rank_interval: float = 0.0) -> Iterator[Sidecar]:
    """Run a sidecar over a directory's rings until the end of the block."""
    sidecar = Sidecar(directory, rank_interval=rank_interval)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        yield sidecar
    finally:
        sidecar.stop()
        thread.join(30)
