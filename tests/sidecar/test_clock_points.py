"""A clock that is wrong is told of at a time that a receiver takes, and nothing else is changed for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from otel_train.catalogue import rows
from otel_train.delivery import read_status
from otel_train.host_clock import OFFSET_FACT, UNCERTAINTY_FACT, is_kept
from otel_train.otlp.answers import Answer, Verdict
from otel_train.sidecar import announcer
from tests.support.otlp_http import Response, serving_http
from tests.support.otlp_store import Store, refusing
from tests.support.rank_ring import SECOND, Rank, deliver, feeds, sender, serving
from tests.support.waiting import wait_until

TOO_NEW = Answer(verdict=Verdict.DATA, cause="HTTP 400", text="timestamp is too far in the future", definite=True)


def offsets(store: Store) -> dict[int, float]:
    """Return the offsets that a store was told, by their times."""
    [points] = [points for (_, name, _), points in store.kept.items() if name == rows.CLOCK_OFFSET.name]
    return {when: NumberDataPoint.FromString(point).as_double for when, point in points.items()}


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_offset_arrives_in_time(ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that refuses what is ahead gets the offset at the true time; the records keep their rank's times."""
    true, moved = time.time_ns, ahead * SECOND
    monkeypatch.setattr(time, "time_ns", lambda: true() + moved)
    monkeypatch.setattr(announcer, "FAILING_AFTER", 0.0)
    first = time.time_ns() - 10 * SECOND
    rank = Rank(tmp_path, first_time=first, facts={OFFSET_FACT: float(ahead), UNCERTAINTY_FACT: 0.1})
    rank.record(1, 2)
    store = Store(refusing(lambda point: point.time_ns > true() + 600 * SECOND, TOO_NEW))
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    for _ in range(4):
        sending.send_all(rings)
    [(when, seconds)] = offsets(store).items()
    assert (abs(when - true()) < 60 * SECOND, round(seconds)) == (True, ahead)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.failing, "clock" in status.advice) == (ahead > 0, ahead > 0)
    moved = 0  # the clock is set right while the job runs
    deliver(sending, rings)
    [feed] = rings.values()
    assert [round(offset.seconds) for offset in feed.clock.offsets().values()] == [0]
    assert store.steps() == ([] if ahead > 0 else [first + SECOND, first + 2 * SECOND])
    assert set(rank.reader.refused) == ({"too_new"} if ahead > 0 else set())


def test_receivers_date_is_compared(
    rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver whose date is far from this machine's is said, with host, offset and cost: log, status, metric."""
    store = Store()

    def respond(body: bytes) -> Response:
        store.send(body)
        return Response()

    rank.record(1)
    with serving_http(monkeypatch, respond) as server:
        server.date = "Thu, 01 Jan 2026 00:00:00 GMT"
        with serving(tmp_path, rank_interval=0.0):
            wait_until(lambda: any(name == rows.CLOCK_OFFSET.name for _, name, _ in store.kept))
    [(when, seconds)] = list(offsets(store).items())[:1]
    assert abs(when / 1e9 - datetime(2026, 1, 1, tzinfo=UTC).timestamp()) < 60
    assert abs(seconds - time.time() + when / 1e9) < 60
    [message] = [text for text in caplog.messages if "the clock of" in text]
    assert "s ahead of the receiver's clock" in message
    assert "chrony" in message
    status = read_status(tmp_path)
    assert status is not None
    assert status.clock == message


def test_kernel_says_whether_clock_is_kept() -> None:
    """The kernel's word is read without a privilege; it changes nothing."""
    assert is_kept() in (True, False, None)
