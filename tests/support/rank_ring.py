"""A rank's ring that a test fills by hand, and the sidecar's parts that send it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.catalogue import LEDGER, MIXING, Metric
from otel_train.endpoint import Endpoint
from otel_train.ring import Fact, Identity, Kind, RingReader, RingWriter, Schema, ring_files, ring_path
from otel_train.sidecar import Sidecar
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.request_bodies import Sends
from otel_train.sidecar.sender import Sender
from otel_train.testing import OtlpReceiver

SCHEMA = Schema(MIXING + LEDGER, ("code", "prose"))
FIRST_TIME = 1_800_000_000_000_000_000
SECOND = 10**9


def time_of(step: int, first_time: int = FIRST_TIME) -> int:
    """Return the time stamp of a step's records, in nanoseconds: steps are a second apart."""
    return first_time + step * SECOND


class Rank:
    """One rank's ring, written by hand: step n has n picks and n evictions.

    Args:
        directory: Where the ring is made.
        rank: Number of the rank.
        records: Records that the ring holds.
        first_time: Time stamp of step 0.
        attempt: Number of the attempt.
        facts: Settings of the job.
    """

    def __init__(
        self,
        directory: Path,
        rank: int = 0,
        records: int = 64,
        first_time: int = FIRST_TIME,
        attempt: int = 7,
        *,
        facts: dict[str, Fact] | None = None,
    ) -> None:
        self.identity = Identity(run_id="run", attempt=attempt, rank=rank, world_size=2)
        self.ring = RingWriter(ring_path(directory, self.identity), SCHEMA, self.identity, records=records, facts=facts)
        self.layout = SCHEMA.layout()
        self._first_time = first_time

    def record(self, *steps: int, kind: Kind = Kind.CLUSTER) -> None:
        """Write one record for each of these steps."""
        for step in steps:
            sums = [0.0] * self.layout.sums
            sums[self.layout.offsets["stream_mixing.picks"]] = sums[self.layout.offsets["ledger.evictions"]] = step
            values = sums + [1.0] * (2 * self.layout.peaks)
            self.ring.write(step, time_of(step, self._first_time), kind, values)

    def log(self, step: int, time_ns: int, kind: Kind = Kind.CLUSTER, **values: float) -> None:
        """Write a record of values that were logged beside the steps, under keys that begin with `late/`."""
        late = [(self.ring.add_key(Metric(f"late/{name}")) or 0, value, 1.0) for name, value in values.items()]
        self.ring.write(step, time_ns, kind, (), late, logged=True)

    def acknowledged(self) -> bool:
        """Tell whether the sidecar has noted that all was acknowledged: killed before that, it sends some again."""
        return self.ring.acknowledged == self.ring.written

    @property
    def reader(self) -> RingReader:
        """A new reader of the ring."""
        return RingReader(self.ring.path)


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    """Return rank 0 with an empty ring."""
    return Rank(tmp_path)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """Return a receiver that the environment names."""
    with OtlpReceiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{made.address}")
        yield made


def feeds(directory: Path, rank_interval: float = 0.0) -> dict[Path, RingFeed]:
    """Return the feeds of a directory's rings, as a sidecar that has just begun has them."""
    return {path: RingFeed(path, rank_interval) for path in ring_files(directory)}


def sender(exporter: Sends, directory: Path) -> Sender:
    """Return what sends them by an exporter."""
    return Sender(exporter, Announcer(directory, Endpoint()), lambda _: contextlib.nullcontext())


def deliver(sending: Sender, rings: dict[Path, RingFeed], tries: int = 60) -> None:
    """Send as often as it takes until all is delivered."""
    for _ in range(tries):
        if sending.send_all(rings) and all(feed.drained for feed in rings.values()):
            return
    left = [path.name for path, feed in rings.items() if not feed.drained]
    raise AssertionError(f"{left} are not delivered after {tries} tries")


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
        thread.join(60)
        assert not thread.is_alive(), f"the sidecar of {directory} has not ended"
