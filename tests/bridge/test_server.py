"""The receiver of OTLP/gRPC: what it refuses and how, and that no sender delays another."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.bridge import (
    Inbox,
)
from otel_train.bridge.intake import MAX_MESSAGE_BYTES
from otel_train.bridge.server import Server
from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Verdict
from otel_train.otlp.exporter import Exporter
from tests.support.commands import run_otel_train
from tests.support.slow_sender import SlowSenders
from tests.support.step_requests import step_request

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"\xff" * 100, lambda whole: whole.replace(b"rud", b"\xed\xa0\x80")],
    ids=["bytes", "text"],
)
def test_server_survives_invalid_request(start: Any, damage: Any) -> None:
    """After random bytes, or a text with half of a surrogate pair, the next request is served."""
    bridge = start()
    call = bridge.channel.unary_unary(f"/{SERVICE}/Export")
    with pytest.raises(grpc.RpcError) as caught:
        call(damage(step_request(1, run_id="rud").SerializeToString()), timeout=30)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    bridge.send(step_request(1))
    bridge.wait(1)


def test_slow_senders_delay_nobody(start: Any) -> None:
    """Beside sixteen senders of a byte a second a healthy one is answered, and its steps become rows."""
    bridge = start()
    with SlowSenders(bridge.address, 16):
        bridge.send(*(step_request(step, {"loss": 0.5}) for step in range(20)))
        bridge.wait(20)


def test_full_disk_asks_for_retry(inbox: Inbox) -> None:
    """A request that SQLite can't keep is answered UNAVAILABLE, leaves nothing, and is taken once there is room."""
    request = step_request(1, {f"metric{index}": 1.0 for index in range(2000)})
    server = Server(inbox, "127.0.0.1:0")
    server.start()
    with ExitStack() as stack, grpc.insecure_channel(server.address) as channel:
        stack.callback(server.stop, 1.0)
        export = MetricsServiceStub(channel).Export  # type: ignore[no-untyped-call]
        inbox.store.connection.execute("PRAGMA max_page_count = 1")  # as many as there are
        with pytest.raises(grpc.RpcError) as caught:
            export(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        (details,) = (item.value for item in caught.value.trailing_metadata() if item.key == "grpc-status-details-bin")
        status = Status.FromString(details)
        assert [detail.TypeName() for detail in status.details] == [RetryInfo.DESCRIPTOR.full_name]
        assert inbox.reader.rows("run") == []
        inbox.store.connection.execute("PRAGMA max_page_count = 1000000")
        export(request, timeout=30)
        assert len(inbox.reader.rows("run")) == 1


def test_answer_counts_refused_points(start: Any) -> None:
    """A request with invalid points is a partial success: the others are kept, and its sender does not repeat it."""
    request, broken = step_request(1), step_request(2, {"n" * 600: 1.0, "late": 1.0})
    broken.resource_metrics[0].scope_metrics[0].metrics[2].gauge.data_points[0].time_unix_nano = 0
    request.resource_metrics.append(broken.resource_metrics[0])
    bridge = start()
    exporter = Exporter(Endpoint.read({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{bridge.address}"}))
    answer = exporter.send(request.SerializeToString())
    assert (answer.verdict, answer.rejected, answer.reason) == (Verdict.TAKEN, 2, "limit")
    assert [text in answer.text for text in ("longer than", "; ", "no usable time")] == [True] * 3
    assert exporter.clock_offset is not None, "an answer has the date"
    assert not exporter.clock_offset.wrong
    bridge.wait(1)


def test_decompression_bomb_is_refused(start: Any) -> None:
    """A small gzipped request that grows beyond the limit never reaches the inbox."""
    request = step_request(1)
    request.resource_metrics[0].scope_metrics[0].metrics[0].description = "x" * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(grpc.RpcError) as caught:
        start().send(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_configured_token_is_required(start: Any) -> None:
    """A sender without the token is refused; health checks do not need it."""
    bridge = start(token="s3cret")
    with pytest.raises(grpc.RpcError) as caught:
        bridge.send(step_request(1), metadata=[("authorization", "Bearer other")])
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    bridge.send(step_request(1), metadata=[("authorization", "Bearer s3cret")])
    answer = health_pb2_grpc.HealthStub(bridge.channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_taken_port_is_one_line(start: Any, tmp_path: Path) -> None:
    """A taken port is an error of one line, without lines of gRPC's own."""
    address = start().address
    answer = run_otel_train("bridge", "--state", tmp_path / "other", "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"can't listen on {address}: Address already in use" in answer.stderr
