"""What a receiver refuses for good costs only that; what may heal is waited for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from otel_train.catalogue import cluster_name, rows
from otel_train.delivery import read_status
from otel_train.otlp.answers import TAKEN, Answer, Verdict
from otel_train.ring import Kind
from otel_train.sidecar import announcer
from otel_train.sidecar.feed import BATCH_RECORDS
from tests.support.otlp_store import Sent, Store, refusing, without_window
from tests.support.rank_ring import Rank, deliver, feeds, sender, time_of

PICKS = cluster_name(rows.PICKS.name)
BAD_DATA = Answer(verdict=Verdict.DATA, cause="HTTP 400", text="invalid", definite=True)
FAULT = Answer(verdict=Verdict.DATA, cause="HTTP 500", text="broken")
AWAY = Answer(verdict=Verdict.WAIT, cause="UNAVAILABLE", text="away", advice="start it")


@pytest.mark.parametrize("answer", [BAD_DATA, FAULT], ids=["400", "500"])
def test_bad_record_costs_only_itself(answer: Answer, rank: Rank, tmp_path: Path) -> None:
    """A record that is refused for good loses its own points, which are counted; all others arrive."""
    rank.record(*range(1, 101))
    store = Store(refusing(lambda point: point.time_ns == time_of(57), answer))
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings)
    assert store.steps() == [time_of(step) for step in range(37, 101) if step != 57]
    cursor = rank.reader.cursor
    assert (cursor.position, cursor.dropped) == (100, 36)
    assert cursor.refused == sum(time_of(58) in times for times in store.kept.values())
    assert len(store.requests) < 150


def test_bad_metric_costs_its_points(rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A metric that is refused for good is named once and left out of later requests, so that few are refused."""
    store = Store(refusing(lambda point: point.name == PICKS, BAD_DATA))
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    rank.record(*range(1, 51))
    deliver(sending, rings)
    refused = len(store.requests)
    rank.record(*range(51, 101))
    deliver(sending, rings)
    assert store.steps() == [time_of(step) for step in range(1, 101)]
    assert rank.reader.cursor.refused == 100
    assert (refused < 60, len(store.requests) - refused) == (True, 1)
    assert [PICKS in record.getMessage() for record in caplog.records if "for good" in record.getMessage()] == [True]


def test_bad_ring_blocks_no_other(rank: Rank, tmp_path: Path) -> None:
    """A ring that is refused whole keeps no other back, and is dropped in a bounded number of tries."""
    bad = Rank(tmp_path, rank=1, records=512)
    bad.record(*range(1, 401), kind=Kind.RANK)
    rank.record(*range(1, 51))
    store = Store(refusing(lambda point: point.instance == "run/7/1", BAD_DATA))
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings, 200)
    assert store.steps() == [time_of(step) for step in range(1, 51)]
    assert bad.reader.cursor.refused > 0
    assert len(store.requests) < 16 * 140


@pytest.mark.parametrize("answer", [BAD_DATA, FAULT, AWAY], ids=["400", "500", "away"])
def test_failing_receiver_is_waited_for(answer: Answer, rank: Rank, tmp_path: Path) -> None:
    """While a receiver takes nothing at all the data are kept; they arrive when it takes something."""
    rank.record(1)
    store, rings = Store(lambda *_: answer), feeds(tmp_path)
    sending = sender(store, tmp_path)
    assert [sending.send_all(rings) for _ in range(20)] == [False] * 20
    store.policy = lambda *_: None
    deliver(sending, rings)
    assert store.steps() == [time_of(1)]
    assert rank.reader.cursor.refused == 0


@pytest.mark.parametrize("limit", [2000, 30_000])
def test_requests_shrink_to_limit(limit: int, rank: Rank, tmp_path: Path) -> None:
    """Requests get as small as the receiver takes, smaller than one record too, and keep the order."""
    rank.record(*range(1, 41))
    too_large = Answer(verdict=Verdict.TOO_LARGE, cause="HTTP 413")
    store = Store(lambda _, __, body: too_large if len(body) > limit else None)
    rings = feeds(tmp_path)
    deliver(sender(store, tmp_path), rings)
    assert store.steps() == [time_of(step) for step in range(1, 41)]
    assert rank.reader.cursor.refused == 0
    taken = [{point.time_ns for point in sent if point.instance == "run/7/0"} for sent in store.requests[12:]]
    assert [times for times in taken if times] == sorted((times for times in taken if times), key=max)


@pytest.mark.parametrize("keeps", ["nothing", "good part"])
@pytest.mark.parametrize("restart", [False, True])
def test_refused_repetition_is_split(keeps: str, restart: bool, tmp_path: Path) -> None:
    """After a lost acknowledgement a store that takes no repetitions still gets all of 320 steps."""
    rank, store = Rank(tmp_path, records=512), without_window(keeps)
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
    assert rank.reader.cursor.refused == 0


def test_each_cause_is_logged_once(
    rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is logged once for each cause, with address and advice; one that lasts is in the status file too."""
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
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split("(")[2][:16].split(":")[0] for text in messages[:2]] == ["UNAVAILABLE", "UNAUTHENTICATED"]
    assert (len(messages), "localhost:4317" in messages[0], "start it" in messages[0]) == (3, True, True)


@pytest.mark.parametrize(("records", "requests"), [(1, 1), (2 * BATCH_RECORDS + 1, 3)])
def test_backlog_is_sent_without_pause(records: int, requests: int, tmp_path: Path) -> None:
    """One look sends the whole backlog; what is recorded during a request waits for the next look."""

    class Acknowledging:
        """An exporter whose receiver takes everything, while a rank goes on."""

        def __init__(self, rank: Rank) -> None:
            self.requests = 0
            self._rank = rank

        def send(self, _: bytes) -> Answer:
            self.requests += 1
            self._rank.record(1000 + self.requests)
            return TAKEN

    rank = Rank(tmp_path, records=4 * BATCH_RECORDS)
    rank.record(*range(1, records + 1))
    exporter = Acknowledging(rank)
    assert sender(exporter, tmp_path).send_all(feeds(tmp_path))
    assert exporter.requests == requests


def rejecting(*answers: tuple[int, str], instance: str = "run/7") -> Store:
    """Return a store whose answers to requests with this resource are partial successes, one after the other."""
    left = list(answers)

    def policy(store: Store, points: list[Sent], _: bytes) -> Answer | None:
        if not left or not any(point.instance.startswith(instance) for point in points):
            return None
        rejected, text = left.pop(0)
        store.keep(points)
        return Answer(verdict=Verdict.TAKEN, cause="partial success", rejected=rejected, text=text)

    return Store(policy)


def refused_points(store: Store) -> dict[str, list[int]]:
    """Return the values of `telemetry.points.refused` that were sent of a rank, in the order of their times."""
    values = {}
    for (_, name, attributes), points in store.kept.items():
        if name == rows.POINTS_REFUSED.name:
            reason = KeyValue.FromString(attributes).value.string_value
            values[reason] = [NumberDataPoint.FromString(point).as_int for _, point in sorted(points.items())]
    return values


def test_rejected_points_are_counted(rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points of a partial success are counted by reason, no more than were sent, are logged once a text, and stay."""
    store = rejecting((2, "sample 1 is too old"), (3, "sample 2 is too old"), (10**9, "no"), (0, "beware"))
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    for step in range(1, 6):
        rank.record(step)
        assert sending.send_all(rings)
    third = len(store.requests[2])
    assert rank.reader.refused == {"too_old": 5, "rejected": third}
    assert (len(store.requests), sum(feed.points for feed in rings.values())) == (
        5,
        sum(map(len, store.requests)) - 5 - third,
    )
    messages = [record.getMessage() for record in caplog.records]
    assert [[word in text for word in ("too old", ": no)", "beware")] for text in messages] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    status = read_status(tmp_path)
    assert status is not None
    assert (status.failing, status.refusal[:19]) == (False, "partial success: no")
    rank.ring.close(5, time_of(5))
    deliver(sending, rings)
    # Each begins with 0: a counter that began with its first count would not have grown by it.
    assert refused_points(store) == {"rejected": [0, third], "too_old": [0, 5]}


def test_rejecting_ring_is_named(rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rings of one request are sent apart once points of it were rejected, so that the right one counts the next."""
    other = Rank(tmp_path, rank=1)
    store = rejecting(*[(2, "too new")] * 4, instance="run/7/1")
    rings, sending = feeds(tmp_path), sender(store, tmp_path)
    for step in range(1, 5):
        rank.record(step)
        other.record(step, kind=Kind.RANK)
        assert sending.send_all(rings)
    assert [rank.reader.refused, other.reader.refused] == [{"too_new": 2}, {"too_new": 6}]
    assert [name in caplog.text for name in ("2 rings", other.ring.path.name, rank.ring.path.name)] == [
        True,
        True,
        False,
    ]


def test_rejected_pieces_are_counted(rank: Rank, tmp_path: Path) -> None:
    """Each piece of a record that is sent apart counts what was rejected of it."""
    rank.record(1)
    bad = refusing(lambda point: point.name == PICKS, BAD_DATA)
    store = Store()

    def policy(_: Store, points: list[Sent], body: bytes) -> Answer | None:
        refusal = bad(store, points, body)
        if refusal is None and any(point.name == rows.STEP.name for point in points):
            return Answer(verdict=Verdict.TAKEN, rejected=1, text="duplicate")
        return refusal

    store.policy = policy
    deliver(sender(store, tmp_path), feeds(tmp_path))
    assert {key: count for key, count in rank.reader.refused.items() if key != "duplicate"} == {"invalid": 1}
    assert rank.reader.refused["duplicate"] >= 1
