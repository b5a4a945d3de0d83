"""A job's settings go out with the first live points of its first rank, and again from time to time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.decode import decode
from otel_train.bridge.job_points import Setting
from otel_train.ring import Fact
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.live_points import SETTINGS_NS
from tests.support.rank_ring import Rank
from tests.support.step_requests import SECOND

FACTS: dict[str, Fact] = {
    "ledger.capacity": 64,
    "torch": "2",
    "config.lr": 0.1,
    "telemetry.blocking": False,
    "config.clip": None,
    "config.groups": [{"betas": [0.9, 0.95], "names": []}, {}],
}


def settings(feed: RingFeed) -> tuple[Setting, ...]:
    """Return the settings in the next batch, as a bridge reads them."""
    batch = feed.next()
    assert batch is not None
    assert batch.live is not None
    (part,) = batch.live.parts(10**6)
    decoded = decode(ExportMetricsServiceRequest.FromString(part.body))
    assert decoded.rejected == 0
    feed.commit(batch)
    return decoded.settings


def test_settings_are_sent_until_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is a point with its value as it is, again after a while and at the next sidecar."""
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    rank = Rank(tmp_path, facts=FACTS)
    feed = RingFeed(rank.ring.path, rank_interval=1.0)
    feed.next()  # was not acknowledged
    now[0] += SECOND
    sent = {setting.name: setting.value for setting in settings(feed)}
    identity = rank.identity
    assert sent == {**FACTS, "job.world_size": identity.world_size, "job.attempt": identity.attempt}
    now[0] += SETTINGS_NS - 1
    assert settings(feed) == ()
    now[0] += SETTINGS_NS
    assert len(settings(feed)) == len(sent)
    assert len(settings(RingFeed(rank.ring.path, rank_interval=1.0))) == len(sent)


def test_other_ranks_tell_no_settings(tmp_path: Path) -> None:
    """The first rank speaks for the job."""
    assert settings(RingFeed(Rank(tmp_path, rank=1, facts=FACTS).ring.path, rank_interval=1.0)) == ()
