"""A clock that is wrong is told of at a time that a receiver takes, and nothing else is changed for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from otel_train.catalogue import rows
from otel_train.delivery import read_status
from otel_train.host_clock import ClockOffset, ClockReading, Reference, is_kept
from otel_train.otlp.answers import Answer, Verdict
from otel_train.ring import Fact
from otel_train.sidecar import announcer
from otel_train.sidecar.clock_points import HOLDS
from tests.support.otlp_http import Response, serving_http
from tests.support.otlp_store import Store, refusing
from tests.support.rank_ring import SECOND, Rank, deliver, feeds, sender, serving
from tests.support.waiting import wait_until

TOO_NEW = Answer(verdict=Verdict.DATA, cause="HTTP 400", text="timestamp is too far in the future", definite=True)


def offsets(store: Store) -> dict[int, float]:
    """Return the offsets that a store was told, by their times."""
    [points] = [points for (_, name, _), points in store.kept.items() if name == rows.CLOCK_OFFSET.name]
    return {when: NumberDataPoint.FromString(point).as_double for when, point in points.items()}


def compared(ahead: float, moved: float = 0.0, age: float = 0.0) -> dict[str, Fact]:
    """Return the facts of a ring whose rank has compared its clock.

    Args:
        ahead: Seconds that it was ahead then.
        moved: Seconds by which it was set since.
        age: Seconds since.
    """
    now = ClockReading.now()
    return {**ClockOffset(ahead, 0.1).facts, **ClockReading(now.wall - age - moved, now.boot - age).facts}


@pytest.mark.parametrize(
    ("compared_as", "elsewhere", "shown"),
    [
        ((3600, 0, 60), None, 3600),
        ((3600, -3600, 60), None, 0),  # set right; the sidecar is started again since
        ((-3600, 3602, 60), None, 2),
        ((0, 28800, 60), None, None),  # all machines may have been set with it
        ((-90, 3600, 60), None, None),
        ((4, 3, 60), None, None),
        ((0.2, 0.5, 60), None, 0.7),
        ((3600, 0, 60), ClockOffset(0.2, 0.6), None),  # of two ranks the other one was wrong
        ((3600, 0, 60), ClockOffset(3600.0, 0.6), 3600),
        ((3600, 0, 60), ClockOffset(30.0, 31.0), 3600),
        ((3600, 0, HOLDS + 60), None, None),
        ((0, 0, HOLDS + 60), None, 0),
    ],
)
def test_outdated_comparison_blames_nobody(
    compared_as: tuple[float, float, float], elsewhere: ClockOffset | None, shown: float | None, tmp_path: Path
) -> None:
    """What the ranks have compared holds until this clock is set, a receiver elsewhere has it right, or for hours."""
    Rank(tmp_path, facts=compared(*compared_as))
    (feed,) = feeds(tmp_path).values()
    feed.clock.elsewhere = elsewhere
    offset = feed.clock.offsets().get(Reference.RANKS)
    assert (None if offset is None else round(offset.seconds, 1)) == shown


def test_suspend_sets_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a machine is suspended its steady clock stands still, but not the one of its start: nothing was set."""
    Rank(tmp_path, facts=compared(0.0))
    (feed,) = feeds(tmp_path).values()
    true, clock, slept = time.time_ns, time.clock_gettime, 28800
    monkeypatch.setattr(time, "time_ns", lambda: true() + slept * SECOND)
    monkeypatch.setattr(time, "clock_gettime", lambda name: clock(name) + slept * (name == time.CLOCK_BOOTTIME))
    assert round(feed.clock.offsets()[Reference.RANKS].seconds, 1) == 0.0


def test_stall_sets_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is held up after it has read one of its clocks has seen none that was set."""
    Rank(tmp_path, facts=compared(0.0))
    (feed,) = feeds(tmp_path).values()
    true, clock, stall = time.time_ns, time.clock_gettime, [0, 8]

    def read_and_stand() -> int:
        now = true() + stall[0] * SECOND
        stall[0] = stall[1]
        return now

    monkeypatch.setattr(time, "time_ns", read_and_stand)
    monkeypatch.setattr(time, "clock_gettime", lambda name: clock(name) + stall[0])
    assert round(feed.clock.offsets()[Reference.RANKS].seconds, 1) == 0.0


def test_uncertain_offset_is_none(tmp_path: Path) -> None:
    """Of an offset only what is certain goes out: a slow answer, from which a clock may be right, fires no alert."""
    rank, store = Rank(tmp_path), Store()
    rank.record(1)
    rings = feeds(tmp_path)
    for feed in rings.values():
        feed.clock.receiver = ClockOffset(15.0, 15.5)
    sender(store, tmp_path).send_all(rings)
    assert list(offsets(store).values()) == [0.0]


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_offset_arrives_in_time(ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that refuses what is ahead gets the offset at the true time; the records keep their rank's times."""
    true, moved = time.time_ns, ahead * SECOND
    monkeypatch.setattr(time, "time_ns", lambda: true() + moved)
    monkeypatch.setattr(announcer, "FAILING_AFTER", 0.0)
    first = time.time_ns() - 10 * SECOND
    rank = Rank(tmp_path, first_time=first, facts=compared(ahead))
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
            wait_until(lambda: any(name == rows.CLOCK_OFFSET.name for _, name, _ in list(store.kept)))
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
