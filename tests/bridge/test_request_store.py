"""Requests are stored together, and answered when they are durable."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from otel_train.bridge import Inbox
from otel_train.bridge.request_store import RequestStore
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until


def test_waiting_requests_share_one_commit(inbox: Inbox) -> None:
    """Requests that wait share one commit; an invalid one fails alone, a cancelled one is left out."""
    store = RequestStore(inbox)
    statements: list[str] = []
    with inbox.store.lock:
        first = store.submit(step_request(1).SerializeToString())
        wait_until(first.running, what="the store's thread")  # it waits for the lock
        contents = [step_request(2).SerializeToString(), b"\xff" * 9, step_request(3).SerializeToString()]
        answers = [store.submit(content) for content in contents]
        store.submit(step_request(4).SerializeToString()).cancel()
        inbox.store.connection.set_trace_callback(statements.append)
    store.close()
    assert statements.count("COMMIT") == 2
    assert [type(answer.exception()) for answer in answers] == [type(None), DecodeError, type(None)]
    assert [row.step for row in inbox.reader.rows("run")] == [1, 2, 3]


def test_unreadable_text_costs_its_resource(inbox: Inbox) -> None:
    """Of a collector's request a sender's text that is not UTF-8, wherever it is, costs that sender's points alone."""
    store = RequestStore(inbox)
    contents = [
        step_request(step, run_id=run_id).SerializeToString()
        for step, run_ids in enumerate((("one", "bad", "two"), ("bad", "one"), ("two", "bad")), 1)
        for run_id in [*run_ids]
    ]
    whole = [b"".join(contents[begin:end]).replace(b"bad", b"b\xffd") for begin, end in ((0, 3), (3, 5), (5, 7))]
    answers = [store.submit(content).result().partial_success for content in whole]
    store.close()
    assert [answer.rejected_data_points for answer in answers] == [2, 2, 2]
    assert "not UTF-8" in answers[0].error_message
    assert store.counts.refused_points == 6
    assert {run_id: [row.step for row in inbox.reader.rows(run_id)] for run_id in inbox.reader.run_ids()} == {
        "one": [1, 2],
        "two": [1, 3],
    }
