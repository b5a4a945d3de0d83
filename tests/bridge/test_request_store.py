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
