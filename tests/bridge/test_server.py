"""The receiver of OTLP/gRPC: what it refuses and how, and that no sender delays another."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from otel_train.bridge import (
    Inbox,
)
from otel_train.bridge.server import MAX_MESSAGE_BYTES, MetricsReceiver
from tests.support.environment import clean_environment
from tests.support.slow_sender import SlowSenders
from tests.support.step_requests import step_request

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"\xff" * 100, lambda whole: whole.replace(b"rud", b"\xed\xa0\x80")],
    ids=["bytes", "text"],
)
def test_server_survives_invalid_request(start: Any, damage: Any) -> None:
    """Random bytes, and a run id with half of a surrogate pair, which can't be in a text."""
    bridge = start()
    call = bridge.channel.unary_unary(f"/{SERVICE}/Export")
    with pytest.raises(grpc.RpcError) as caught:
        call(damage(step_request(1, run_id="rud").SerializeToString()), timeout=30)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    bridge.send(step_request(1))
    bridge.wait(1)


def test_waiting_requests_share_one_commit(tmp_path: Path) -> None:
    """One commit, thus one wait for the disk; what is no request fails alone, what its sender gave up is left out."""
    with Inbox(tmp_path) as inbox:
        receiver = MetricsReceiver(inbox)
        answers: list[Future[Any]] = [Future() for _ in range(4)]
        answers[3].cancel()
        contents = [step_request(1).SerializeToString(), b"\xff" * 9, step_request(2).SerializeToString(), b""]
        receiver._waiting.extend(zip(contents, answers, strict=True))
        statements: list[str] = []
        inbox.store.connection.set_trace_callback(statements.append)
        receiver._store_waiting()
        assert statements.count("COMMIT") == 1
        assert [type(answer.exception()) for answer in answers[:3]] == [type(None), DecodeError, type(None)]
        assert [row.step for row in inbox.reader.rows("run")] == [1, 2]
        receiver.close()


def test_slow_senders_delay_nobody(start: Any) -> None:
    """Sixteen that send a byte a second, and one that is healthy: its requests are answered and become rows."""
    bridge = start()
    with SlowSenders(bridge.address, 16):
        bridge.send(*(step_request(step, {"loss": 0.5}) for step in range(20)))
        bridge.wait(20)


def test_full_disk_asks_for_retry(start: Any) -> None:
    """A request that SQLite can't keep is answered UNAVAILABLE, leaves nothing, and is taken once there is room."""
    bridge = start()
    request = step_request(1, {f"metric{index}": 1.0 for index in range(2000)})
    connection = bridge.bridge._inbox.store.connection
    connection.execute("PRAGMA max_page_count = 1")  # as many as there are
    with pytest.raises(grpc.RpcError) as caught:
        bridge.send(request)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    (details,) = (each.value for each in caught.value.trailing_metadata() if each.key == "grpc-status-details-bin")
    status = Status.FromString(details)
    assert [each.TypeName() for each in status.details] == [RetryInfo.DESCRIPTOR.full_name]
    connection.execute("PRAGMA max_page_count = 1000000")
    bridge.send(request)
    bridge.wait(1)


def test_answer_counts_refused_points(start: Any) -> None:
    """The rest of such a request is kept, and it is not an error that senders repeat."""
    request, broken = step_request(1), step_request(2, {"n" * 600: 1.0})
    request.resource_metrics.append(broken.resource_metrics[0])
    bridge = start()
    answer = bridge.send(request)
    assert answer.partial_success.rejected_data_points == 1
    assert "longer than" in answer.partial_success.error_message
    bridge.wait(1)


def test_decompression_bomb_is_refused(start: Any) -> None:
    """A small gzipped request that grows beyond the limit never reaches the inbox."""
    request = step_request(1)
    request.resource_metrics[0].scope_metrics[0].metrics[0].description = "x" * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(grpc.RpcError) as caught:
        start().send(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_configured_token_is_required(start: Any) -> None:
    """A sender without it is refused; health checks need none."""
    bridge = start(token="s3cret")
    with pytest.raises(grpc.RpcError) as caught:
        bridge.send(step_request(1), metadata=[("authorization", "Bearer other")])
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    bridge.send(step_request(1), metadata=[("authorization", "Bearer s3cret")])
    answer = health_pb2_grpc.HealthStub(bridge.channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def bridge_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "otel_train", "bridge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)


def test_taken_port_is_one_line(start: Any, tmp_path: Path) -> None:
    """No line of gRPC's own comes before it."""
    address = start().address
    answer = bridge_command("--state", str(tmp_path / "other"), "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"can't listen on {address}: Address already in use" in answer.stderr
