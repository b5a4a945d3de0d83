"""What the bridge answers to requests that it can't take, judged by the table of OTLP's specification."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.inbox_store import INBOX_FILE
from otel_train.catalogue import cluster_name
from tests.support.sdk_senders import BoundedBridge
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


@pytest.fixture
def running(bridge: Any) -> BoundedBridge:
    """Give a bridge."""
    started: BoundedBridge = bridge()
    return started


@pytest.fixture
def channel(running: BoundedBridge) -> Iterator[grpc.Channel]:
    """Give a connection to it."""
    with grpc.insecure_channel(running.address) as channel:
        yield channel


@pytest.fixture
def export(channel: grpc.Channel) -> Any:
    """Give the call of its Export, bytes for bytes."""
    return channel.unary_unary(METHOD, bytes, bytes)


@contextmanager
def busy(running: BoundedBridge) -> Iterator[None]:
    """Hold the inbox during the block, as a disk does that takes long."""
    with closing(sqlite3.connect(running.state / INBOX_FILE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def request(number: int) -> bytes:
    """Return a request with one point of a step."""
    message = ExportMetricsServiceRequest()
    sent = message.resource_metrics.add()
    sent.resource.attributes.add(key="train.run.id").value.string_value = "run"
    sent.resource.attributes.add(key="train.attempt").value.int_value = 1
    metric = sent.scope_metrics.add().metrics.add(name=cluster_name("loss"))
    metric.gauge.data_points.add(time_unix_nano=number + 1, as_double=0.5)
    return message.SerializeToString()


def test_empty_request_is_accepted(export: Any) -> None:
    """A request without data is a success, and a success leaves partial_success out."""
    assert export(b"", timeout=60) == b""


def test_invalid_request_is_not_retryable(export: Any) -> None:
    """Bytes that are no message are answered with a code that forbids to send them again."""
    with pytest.raises(grpc.RpcError) as caught:
        export(b"\xff" * 9, timeout=60)
    assert caught.value.code() not in RETRYABLE | {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_overload_is_retryable(running: BoundedBridge, export: Any) -> None:
    """While the disk takes long, each of many requests is kept or refused with a retryable code."""
    with busy(running):
        answers = [export.future(request(number), timeout=120) for number in range(300)]
        wait_until(lambda: any(answer.done() for answer in answers), what="a refusal")
    assert {answer.code() for answer in answers} <= RETRYABLE | {grpc.StatusCode.OK}


def test_stop_is_retryable(running: BoundedBridge, channel: grpc.Channel, export: Any) -> None:
    """What is in flight at SIGTERM and not kept is refused with a retryable code."""
    with busy(running):
        answers = [export.future(request(number), timeout=120) for number in range(3)]
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == health_pb2.HealthCheckResponse.SERVING  # it was asked after them
        running.stop()
    assert {answer.code() for answer in answers} <= RETRYABLE
