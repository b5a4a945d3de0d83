"""What a receiver refuses for good costs only that; what may heal is waited for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.delivery import read_status
from otel_train.otlp.answers import Answer, Verdict
from otel_train.ring import Kind, RingReader
from otel_train.sidecar import announcer
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.sender import Sender
from tests.sidecar.conftest import FIRST_TIME, Rank, feeds, sender
from tests.support.otlp_store import Sent, Store, refusing

PICKS = cluster_name(rows.PICKS.name)
BAD_DATA = Answer(verdict=Verdict.DATA, cause="HTTP 400", text="invalid", definite=True)
FAULT = Answer(verdict=Verdict.DATA, cause="HTTP 500", text="broken")
AWAY = Answer(verdict=Verdict.WAIT, cause="UNAVAILABLE", text="away", advice="start it")


def time_of(step: int) -> int:
    """Return the time stamp of a step's records."""
    return FIRST_TIME + step * 10**9


def deliver(sending: Sender, rings: dict[Path, RingFeed], tries: int = 60) -> None:
    """Send as often as it takes until all is delivered."""
    for _ in range(tries):
        if sending.send_all(rings) and all(feed.drained for feed in rings.values()):
            return
    raise AssertionError("not delivered")


@pytest.mark.parametrize("answer", [BAD_DATA, FAULT], ids=["400", "500"])
def test_bad_record_costs_only_itself(answer: Answer, rank: Rank, tmp_path: Path) -> None:
    """Whatever its place among others; its points are counted, and the cursor goes on."""
    for step in range(1, 101):
        rank.record(step)
    store = Store(refusing(lambda point: point.time_ns == time_of(57), answer))
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings)
    assert store.steps() == [time_of(step) for step in range(37, 101) if step != 57]
    cursor = RingReader(rank.ring.path).cursor
    assert (cursor.position, cursor.dropped) == (100, 36)
    assert cursor.refused == sum(time_of(58) in times for times in store.kept.values())
    assert len(store.requests) < 150


def test_bad_metric_costs_its_points(rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is found, named once, and left out of later requests, so that few requests are refused."""
    store = Store(refusing(lambda point: point.name == PICKS, BAD_DATA))
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    for step in range(1, 51):
        rank.record(step)
    deliver(sending, rings)
    refused = len(store.requests)
    for step in range(51, 101):
        rank.record(step)
    deliver(sending, rings)
    assert store.steps() == [time_of(step) for step in range(1, 101)]
    assert RingReader(rank.ring.path).cursor.refused == 100
    assert (refused < 60, len(store.requests) - refused) == (True, 1)
    assert [PICKS in record.getMessage() for record in caplog.records if "for good" in record.getMessage()] == [True]


def test_bad_ring_blocks_no_other(rank: Rank, tmp_path: Path) -> None:
    """The others' requests go on meanwhile, and the bad one's are dropped in a bounded number of tries."""
    bad = Rank(tmp_path, rank=1, records=512)
    for step in range(1, 401):
        bad.record(step, Kind.RANK)
    for step in range(1, 51):
        rank.record(step)
    store = Store(refusing(lambda point: point.instance == "run/7/1", BAD_DATA))
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings, 200)
    assert store.steps() == [time_of(step) for step in range(1, 51)]
    assert RingReader(bad.ring.path).cursor.refused > 0
    assert len(store.requests) < 16 * 140


@pytest.mark.parametrize("answer", [BAD_DATA, FAULT, AWAY], ids=["400", "500", "away"])
def test_failing_receiver_is_waited_for(answer: Answer, rank: Rank, tmp_path: Path) -> None:
    """Nothing shows that the data are at fault: they are kept, and arrive when it takes something."""
    rank.record(1)
    store, rings = Store(lambda *_: answer), feeds(tmp_path)
    sending = sender(store, tmp_path)
    assert [sending.send_all(rings) for _ in range(20)] == [False] * 20
    store.policy = lambda *_: None
    deliver(sending, rings)
    assert store.steps() == [time_of(1)]
    assert RingReader(rank.ring.path).cursor.refused == 0


@pytest.mark.parametrize("limit", [2000, 30_000])
def test_requests_shrink_to_limit(limit: int, rank: Rank, tmp_path: Path) -> None:
    """A bound of any size, below that of one record too, loses nothing and keeps the order."""
    for step in range(1, 41):
        rank.record(step)
    too_large = Answer(verdict=Verdict.TOO_LARGE, cause="HTTP 413")
    store = Store(lambda _, __, body: too_large if len(body) > limit else None)
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings)
    assert store.steps() == [time_of(step) for step in range(1, 41)]
    assert RingReader(rank.ring.path).cursor.refused == 0
    taken = [{point.time_ns for point in sent if point.instance == "run/7/0"} for sent in store.requests[12:]]
    assert [times for times in taken if times] == sorted((times for times in taken if times), key=max)


def no_window(keeps: str) -> Store:
    """Return a store that takes no repetitions and nothing out of order, as some do without a window for it."""
    refusal = Answer(verdict=Verdict.DATA, cause="HTTP 409", text="out of order sample", definite=True)

    def policy(store: Store, points: list[Sent], _: bytes) -> Answer | None:
        newest = {series: max(times) for series, times in store.kept.items() if times}
        good = []
        for point in points:
            if point.time_ns > newest.get(point.series, 0):
                newest[point.series] = point.time_ns
                good.append(point)
        if len(good) == len(points):
            return None
        if keeps == "good part":
            store.keep(good)
        return refusal

    return Store(policy)


@pytest.mark.parametrize("keeps", ["nothing", "good part"])
@pytest.mark.parametrize("restart", [False, True])
def test_refused_repetition_is_split(keeps: str, restart: bool, tmp_path: Path) -> None:
    """One lost acknowledgement and a store without a window for repetitions: all of 320 steps are there."""
    rank, store = Rank(tmp_path, records=512), no_window(keeps)
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    for step in range(1, 321):
        rank.record(step)
        if step % 40 == 20:
            store.lose_next = step == 100
            sending.send_all(rings)
            if restart and step == 100:
                rings, sending = feeds(tmp_path), sender(store, tmp_path)
    deliver(sending, rings)
    assert store.steps() == [time_of(step) for step in range(1, 321)]
    assert RingReader(rank.ring.path).cursor.refused == 0


def test_each_cause_is_logged_once(
    rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status, text and what to do, in the log and, when it lasts, in the status file for the ranks."""
    monkeypatch.setattr(announcer, "FAILING_AFTER", 0.0)
    caplog.set_level(logging.INFO)
    rank.record(1)
    store, rings = Store(), feeds(tmp_path)
    sending = sender(store, tmp_path)
    token = Answer(verdict=Verdict.WAIT, cause="UNAUTHENTICATED", text="who?")
    for answer in (AWAY, AWAY, token, AWAY, None):
        store.policy = lambda *_, answer=answer: answer
        sending.send_all(rings)
        status = read_status(tmp_path)
        assert status is not None
        assert (status.failing, status.cause) == ((True, answer.cause) if answer else (False, ""))
    said = [record.getMessage() for record in caplog.records]
    assert [text.split("(")[2][:16].split(":")[0] for text in said[:2]] == ["UNAVAILABLE", "UNAUTHENTICATED"]
    assert (len(said), "localhost:4317" in said[0], "start it" in said[0]) == (3, True, True)
