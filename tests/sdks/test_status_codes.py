"""Answers of the bridge to requests that it can't take, compared with the table of OTLP's specification."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from otel_train.bridge.inbox_store import INBOX_FILE
from tests.support.http_client import PROTOBUF, HttpClient
from tests.support.sdk_senders import BoundedBridge
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until

pytestmark = pytest.mark.faults

METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""RESOURCE_EXHAUSTED is too, but only with a RetryInfo among its details."""


@contextmanager
def busy(running: BoundedBridge) -> Iterator[None]:
    """Hold the inbox during the block, as a disk does that takes long."""
    with closing(sqlite3.connect(running.state / INBOX_FILE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_empty_request_is_accepted(bridge: Any) -> None:
    """A request without data is a success, and a success leaves partial_success out."""
    with grpc.insecure_channel(bridge().address) as channel:
        assert channel.unary_unary(METHOD, bytes, bytes)(b"", timeout=60) == b""


def test_invalid_request_is_not_retryable(bridge: Any) -> None:
    """Bytes that are not a message are answered with a code that forbids to send them again."""
    with grpc.insecure_channel(bridge().address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(METHOD, bytes, bytes)(b"\xff" * 9, timeout=60)
    assert caught.value.code() not in RETRYABLE | {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_overload_is_retryable(bridge: Any) -> None:
    """While the disk takes long, each of many requests is kept or refused with a retryable code."""
    running = bridge()
    with grpc.insecure_channel(running.address) as channel:
        export = channel.unary_unary(METHOD, bytes, bytes)
        requests = [step_request(step, {"loss": 0.5}, counted=False).SerializeToString() for step in range(300)]
        with busy(running):
            answers = [export.future(request, timeout=120) for request in requests]
            wait_until(lambda: any(answer.done() for answer in answers), what="a refusal")
        assert {answer.code() for answer in answers} <= RETRYABLE | {grpc.StatusCode.OK}


def test_stop_is_retryable(bridge: Any) -> None:
    """A request that is in flight at SIGTERM and not kept is refused with a retryable code."""
    running = bridge()
    with grpc.insecure_channel(running.address) as channel:
        export = channel.unary_unary(METHOD, bytes, bytes)
        requests = [step_request(step, {"loss": 0.5}, counted=False).SerializeToString() for step in range(3)]
        with busy(running):
            answers = [export.future(request, timeout=120) for request in requests]
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert health.status == health_pb2.HealthCheckResponse.SERVING  # it was asked after them
            running.stop()
        assert {answer.code() for answer in answers} <= RETRYABLE


def test_http_stop_is_retryable(bridge: Any) -> None:
    """Over HTTP such a request is answered 503."""
    running = bridge()
    request = step_request(1, {"loss": 0.5}, counted=False).SerializeToString()
    head = f"POST /v1/metrics HTTP/1.1\r\nHost: b\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(request)}\r\n\r\n"
    host, _, port = running.http_address.rpartition(":")
    with busy(running), ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(3)]
        for connection in connections:
            connection.sendall(head.encode() + request)
        with HttpClient(running.http_address) as client:  # it is asked after them
            assert client.send(None, method="GET", path="/healthz").status == 200
        running.stop()
        assert {connection.recv(12) for connection in connections} == {b"HTTP/1.1 503"}
