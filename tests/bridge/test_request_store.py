"""Requests are stored together, and answered when they are durable."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from otel_train.bridge import Inbox
from otel_train.bridge.decode import MAX_ITEMS, TOO_MANY
from otel_train.bridge.request_parts import parse_request
from otel_train.bridge.request_store import RequestStore
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until

ARRAY = AnyValue.DESCRIPTOR.fields_by_name["array_value"].number


def _field(number: int, content: bytes) -> bytes:
    """Return a field of protobuf's format that has a length; protobuf's own types make none that they can't read."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


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


def test_deep_attribute_costs_its_resource(inbox: Inbox) -> None:
    """An attribute that is nested deeper than protobuf reads costs its sender's points, and says so; not the others."""
    one, two, deep = (step_request(1, run_id=run_id).SerializeToString() for run_id in ("one", "two", "deep"))
    value = b""
    for _ in range(60):
        value = _field(ARRAY, _field(1, value))
    resource = _field(1, _field(1, _field(2, value)))
    part = ExportMetricsServiceRequest.FromString(deep).resource_metrics[0].SerializeToString()
    deep = _field(1, part + resource)
    with pytest.raises(DecodeError):
        parse_request(deep)
    store = RequestStore(inbox)
    answer = store.submit(one + deep + two).result().partial_success
    store.close()
    assert (answer.rejected_data_points, "nested too deep" in answer.error_message) == (1, True)
    assert {run_id: len(inbox.reader.rows(run_id)) for run_id in inbox.reader.run_ids()} == {"one": 1, "two": 1}


def test_too_many_unreadable_resources_are_refused() -> None:
    """As many resources as are refused where all can be read are refused before each of them is read by itself."""
    unreadable = ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(schema_url="x")]).SerializeToString()
    whole = step_request(1).SerializeToString() + unreadable.replace(b"x", b"\xff") * MAX_ITEMS
    parsed = parse_request(whole)
    assert (len(parsed.request.resource_metrics), parsed.lost, parsed.reason) == (0, MAX_ITEMS + 1, TOO_MANY)


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
