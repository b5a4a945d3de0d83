"""What a sidecar makes of rings that are not as usual: read before, damaged in their values, or large."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.decode import decode
from otel_train.catalogue import Phase, cluster_name, rows
from otel_train.otlp.answers import TAKEN, Answer
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_path
from otel_train.sidecar.feed import BATCH_RECORDS, Batch, RingFeed
from otel_train.testing import OtlpReceiver
from tests.sidecar.conftest import FIRST_TIME, Rank, feeds, sender, serving
from tests.support.otlp_store import points_of
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


def test_held_values_survive_restart(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """It had held them back for the interval, and was killed; what it had sent is not sent again."""
    for step in (1, 2, 3):
        rank.record(step, Kind.RANK)
    rank.record(3)
    with receiver:
        with serving(tmp_path, rank_interval=1000.0):
            wait_until(lambda: RingReader(rank.ring.path).cursor.position == 4)
        assert receiver.values(rows.PICKS.name) == [1]
        rank.ring.close(3, 0)
        with serving(tmp_path, rank_interval=1000.0):
            wait_until(lambda: receiver.values(rows.PICKS.name) == [1, 6])
        rank.record(4)
        with serving(tmp_path, rank_interval=1000.0):
            wait_until(lambda: receiver.values(PICKS) == [3, 7])
    assert receiver.values(rows.PICKS.name) == [1, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_invalid_count_costs_only_itself(
    value: float, rank: Rank, receiver: OtlpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ring is not given up, and the counts that follow are right."""
    values = [0.0] * rank.ring.geometry.values
    values[rank.layout.offsets[rows.PICKS.name]] = value
    rank.ring.write(1, FIRST_TIME, Kind.CLUSTER, values)
    rank.record(2)
    with receiver, serving(tmp_path):
        wait_until(lambda: receiver.values(PICKS) == [0, 2])
    assert not [each for each in caplog.records if "damaged" in each.getMessage()]


def test_requests_stay_within_limits(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Two rings with a backlog of 30,000 large points each arrive at a receiver that takes 4 MiB at most."""
    schema = Schema((rows.TOKENS,), tuple(f"{number:0130}" for number in range(500)))
    for rank in range(2):
        identity = Identity(run_id="run", attempt=7, rank=rank, world_size=2)
        ring = RingWriter(ring_path(tmp_path, identity), schema, identity, records=64)
        for step in range(1, 61):
            ring.write(step, FIRST_TIME + step, Kind.CLUSTER, [1.0] * ring.geometry.values)
    with receiver, serving(tmp_path):
        wait_until(lambda: len(receiver.values(cluster_name(rows.STEP_POINTS.name))) == 120, 60)


class Acknowledging:
    """An exporter whose receiver takes everything, while a rank goes on."""

    def __init__(self, rank: Rank) -> None:
        self.requests = 0
        self._rank = rank

    def send(self, _: bytes) -> Answer:
        self.requests += 1
        self._rank.record(1000 + self.requests)
        return TAKEN


def test_new_records_wait_for_poll(rank: Rank, tmp_path: Path) -> None:
    """A rank of short steps would have a request for each step, which costs many times as much as one for all."""
    rank.record(1)
    exporter = Acknowledging(rank)
    assert sender(exporter, tmp_path).send_all(feeds(tmp_path))
    assert exporter.requests == 1


def test_backlog_is_sent_without_pause(tmp_path: Path) -> None:
    """As many requests follow each other as are full, and the rest of it."""
    rank = Rank(tmp_path, records=4 * BATCH_RECORDS)
    for step in range(1, 2 * BATCH_RECORDS + 2):
        rank.record(step)
    exporter = Acknowledging(rank)
    assert sender(exporter, tmp_path).send_all(feeds(tmp_path))
    assert exporter.requests == 3


def request(batch: Batch | None) -> ExportMetricsServiceRequest:
    """Return what is sent of a batch."""
    assert batch is not None
    made: Any = ExportMetricsServiceRequest()
    for builder in (batch.metrics, batch.live):
        if builder is not None:
            builder.write(made.resource_metrics.add())
    return ExportMetricsServiceRequest.FromString(made.SerializeToString())


def sent(batch: Batch | None, name: str) -> list[tuple[float, dict[str, str]]]:
    """Return the values and attributes of a gauge in a batch."""
    resources = request(batch).resource_metrics
    metrics = [metric for resource in resources for metric in resource.scope_metrics[0].metrics]
    points = [point for metric in metrics if metric.name == name for point in metric.gauge.data_points]
    return [
        (point.as_double or point.as_int, {each.key: each.value.string_value for each in point.attributes})
        for point in points
    ]


def test_hanging_rank_shows_its_phase(tmp_path: Path) -> None:
    """Though it records nothing more; the age is no step to the bridge, and an ended rank has none."""
    rank = Rank(tmp_path, rank=1)
    values, began = [0.0] * rank.ring.geometry.values, time.time_ns() - 100 * 10**9
    for step in (1, 2):
        rank.ring.write(step, began + step, Kind.RANK, values)
    rank.ring.enter(Phase.DATA)
    feed = RingFeed(rank.ring.path, rank_interval=1.0)
    first = feed.next()
    assert [step for step, _ in sent(first, rows.STEP.name)] == [1, 2]
    ((age, attributes),) = sent(first, rows.STEP_AGE.name)
    assert (round(age), attributes) == (100, {"phase": "data"})
    assert first is not None
    feed.commit(first)
    assert feed.next() is None
    feed._age_ns = 0
    alone = feed.next()
    assert len(sent(alone, rows.STEP_AGE.name)) == 1
    assert decode(request(alone)).points == ()
    feed._age_ns = 0
    rank.ring.close(2, 0)
    assert feed.next() is None
    assert feed.drained


def test_live_times_never_go_back(rank: Rank) -> None:
    """Their times rise all the same: many stores refuse what is older than a series' last point."""
    feed = RingFeed(rank.ring.path, rank_interval=1.0)
    feed._live_ns = later = time.time_ns() + 3600 * 10**9
    points = [point for _ in range(2) for part in feed.probe().parts(10**6) for point in points_of(part.body)]
    assert sorted({point.time_ns - later for point in points}) == [10**6, 2 * 10**6]
