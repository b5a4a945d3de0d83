"""What a ring has to send: records read before, counts that are not finite, large points, and a rank that hangs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.decode import decode
from otel_train.catalogue import Phase, cluster_name, rows
from otel_train.ring import End, Identity, Kind, RingWriter, Schema, ring_path
from otel_train.sidecar.feed import RingFeed
from otel_train.testing import OtlpReceiver
from tests.support.otlp_store import points_of
from tests.support.rank_ring import FIRST_TIME, SECOND, Rank, serving
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


def test_held_values_survive_restart(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """What a sidecar held back for the interval when it ended is sent by the next one, and what it sent is not."""
    rank.record(1, 2, 3, kind=Kind.RANK)
    rank.record(3)
    with serving(tmp_path, rank_interval=1000.0):
        wait_until(lambda: rank.reader.cursor.position == 4)
    assert receiver.values(rows.PICKS.name) == [1]
    rank.ring.close(3, 0)
    with serving(tmp_path, rank_interval=1000.0):
        wait_until(lambda: receiver.values(rows.PICKS.name) == [1, 6])
    rank.record(4)
    with serving(tmp_path, rank_interval=1000.0):
        wait_until(lambda: receiver.values(PICKS) == [3, 7])
    assert receiver.values(rows.PICKS.name) == [1, 6]


def test_end_amid_call_is_no_end_yet(rank: Rank) -> None:
    """A session that was closed amid a call is at its end when that call's records are there; how it ends is noted at
    once, and stays when reductions are abandoned meanwhile.
    """
    rank.record(1)
    rank.ring.close(1, 0, is_ending=True)
    rank.ring.abandoned = 2
    feed = RingFeed(rank.ring.path, None)
    assert (feed.ended, feed.reader.progress.end, feed.reader.progress.abandoned) == (False, End.CLOSED, 2)
    rank.record(2)
    rank.ring.close(2, 0)
    assert (feed.ended, feed.reader.progress.abandoned) == (True, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_invalid_count_costs_only_itself(
    value: float, rank: Rank, receiver: OtlpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A count that is not a number is left out; the ring is not given up, and the counts that follow are right."""
    values = [0.0] * rank.ring.geometry.values
    values[rank.layout.offsets[rows.PICKS.name]] = value
    rank.ring.write(1, FIRST_TIME, Kind.CLUSTER, values)
    rank.record(2)
    with serving(tmp_path):
        wait_until(lambda: receiver.values(PICKS) == [0, 2])
    assert "damaged" not in caplog.text


def test_requests_stay_within_limits(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Two rings with a backlog of 30,000 large points each arrive at a receiver that takes 4 MiB at most."""
    schema = Schema((rows.TOKENS,), tuple(f"{number:0130}" for number in range(500)))
    for rank in range(2):
        identity = Identity(run_id="run", attempt=7, rank=rank, world_size=2)
        ring = RingWriter(ring_path(tmp_path, identity), schema, identity, records=64)
        for step in range(1, 61):
            ring.write(step, FIRST_TIME + step, Kind.CLUSTER, [1.0] * ring.geometry.values)
    with serving(tmp_path):
        wait_until(lambda: len(receiver.values(cluster_name(rows.STEP_POINTS.name))) == 120, 60)


def test_hanging_rank_shows_its_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that hangs shows its last step and, once an interval, its age and phase, which are no step to a bridge."""
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    rank, receiver = Rank(tmp_path, rank=1), OtlpReceiver()
    for step in (1, 2):
        values = [0.0] * rank.ring.geometry.values
        rank.ring.write(step, now[0] - 100 * SECOND + step, Kind.RANK, values)
    rank.ring.enter(Phase.DATA)
    feed = RingFeed(rank.ring.path, rank_interval=1.0)
    for _ in range(2):
        batch = feed.next()
        assert batch is not None
        for builder in (batch.metrics, batch.live):
            for part in builder.parts(10**6) if builder is not None else ():
                request = ExportMetricsServiceRequest.FromString(part.body)
                receiver.take(request)
                assert decode(request).points == ()
        feed.commit(batch)
        assert feed.next() is None
        now[0] += SECOND
    rank.ring.close(2, 0)
    batch = feed.next()
    assert batch is not None
    assert batch.live is not None
    assert rows.SESSION_FAILED.name in batch.live.names
    assert rows.STEP_AGE.name not in batch.live.names
    feed.commit(batch)
    assert feed.next() is None
    assert feed.drained
    assert receiver.values(rows.STEP.name) == [1, 2]
    ages = [point for point in receiver.points if point.name == rows.STEP_AGE.name]
    assert [round(age.value) for age in ages] == [100, 101]
    assert {age.attributes for age in ages} == {(("phase", "data"),)}


def test_lost_steps_are_waited_for(tmp_path: Path) -> None:
    """A sidecar that goes on after records were overwritten shows no step before the cluster's values of those."""
    rank = Rank(tmp_path, records=8, first_time=time.time_ns() - 100 * SECOND)
    rank.record(*range(1, 15), kind=Kind.RANK)
    rank.record(*range(1, 8))
    rank.record(15, kind=Kind.RANK)
    for _ in range(2):
        feed, sent = RingFeed(rank.ring.path, 0.0), list[int]()
        while (batch := feed.next(live=False)) is not None:
            parts = batch.metrics.parts(10**6) if batch.metrics is not None else []
            sent += [point.time_ns for part in parts for point in points_of(part.body) if point.name == rows.STEP.name]
            feed.commit(batch)
    assert sent == []


def test_live_times_never_go_back(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of live points rise though a clock is set back: many stores refuse what is older than the last point."""
    feed, now = RingFeed(rank.ring.path, rank_interval=1.0), time.time_ns()
    times = []
    for clock in (now, now - 3600 * SECOND, now - 3600 * SECOND):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        times += sorted({point.time_ns for part in feed.probe().parts(10**6) for point in points_of(part.body)})
    assert times == [now, now + 10**6, now + 2 * 10**6]
