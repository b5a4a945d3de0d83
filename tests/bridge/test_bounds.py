"""What the bridge makes of requests that are too large, too many or too slow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.message import DecodeError

from otel_train.bridge import Inbox
from otel_train.bridge.decode import MAX_ATTRIBUTES, MAX_ITEMS, decode
from otel_train.bridge.server import MAX_MESSAGE_BYTES, MetricsReceiver
from otel_train.catalogue import MAX_TEXT, cluster_name
from tests.support.slow_sender import SlowSenders
from tests.support.step_requests import step_request

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
MIB = 2**20
PEAK = """
import sys
from pathlib import Path
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otel_train.bridge.decode import decode

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024  # unlike getrusage's, not the parent's before

def part(field, content):
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content

size, repeated, *outer = map(int, sys.argv[1:])
content = part(repeated, b"") * (size // 2 - 20)
for field in outer:
    content = part(field, content)
before = peak()
decode(ExportMetricsServiceRequest.FromString(content))
print(peak() - before)
"""
"""Prints what a request of so many bytes costs that has as many empty parts as fit, in a field within fields."""


def many(list_: Any, count: int) -> None:
    """Append so many empty parts to a list of a request."""
    part = type(list_.add())()
    list_.extend([part] * (count - len(list_)))


@pytest.mark.parametrize(
    ("grow", "rejected"),
    [
        (lambda resource, _: many(resource.resource.attributes, 1_000_000), 3),
        (lambda _, metrics: many(metrics[1].gauge.data_points[0].attributes, 1_000_000), 1),
        (lambda resource, _: setattr(resource.resource.attributes[2].value, "string_value", "r" * MIB), 3),
        (lambda _, metrics: setattr(metrics[1], "name", cluster_name("n" * MIB)), 1),
    ],
    ids=["resource", "point", "run id", "name"],
)
def test_oversized_part_is_refused_alone(grow: Callable[[Any, Any], None], rejected: int) -> None:
    """A million attributes and texts of a megabyte cost their resource or point, and an answer of a line."""
    request = step_request(1, {"loss": 0.5})
    grow(request.resource_metrics[0], request.resource_metrics[0].scope_metrics[0].metrics)
    request.MergeFrom(step_request(2, {"loss": 0.5}))
    decoded = decode(request)
    assert (decoded.rejected, len(decoded.points)) == (rejected, 6 - rejected)
    assert len(decoded.reason) < 200


def test_bounds_themselves_are_accepted() -> None:
    """The bounds themselves belong to what is accepted."""
    request = step_request(1, {cluster_name("n" * MAX_TEXT)[-MAX_TEXT + 8 :]: 0.5}, run_id="r" * MAX_TEXT)
    many(request.resource_metrics[0].resource.attributes, MAX_ATTRIBUTES)
    assert (decode(request).rejected, len(decode(request).points)) == (0, 3)


@pytest.mark.parametrize(
    "list_of",
    [
        lambda request: request.resource_metrics,
        lambda request: request.resource_metrics[0].scope_metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points,
    ],
    ids=["resources", "scopes", "metrics", "points"],
)
def test_too_many_parts_are_refused(list_of: Callable[[Any], Any]) -> None:
    """Empty parts take two bytes each, and would take a worker's time by the million."""
    request = step_request(1, {"loss": 0.5})
    many(list_of(request), MAX_ITEMS)
    decoded = decode(request)
    assert decoded.points == ()
    assert decoded.rejected > MAX_ITEMS


@pytest.mark.parametrize(
    "fields",
    [(1,), (2, 1), (2, 2, 1), (1, 5, 2, 2, 1), (1, 10, 2, 2, 1)],
    ids=["resources", "scopes", "metrics", "gauge", "exponential histogram"],
)
def test_worst_request_fits_stack_memory(fields: tuple[int, ...]) -> None:
    """Empty parts take two bytes on the way and up to 130 in memory, before anybody can count them."""
    limits = yaml.safe_load(COMPOSE.read_text())["services"]["wandb-bridge"]["deploy"]["resources"]["limits"]
    assert limits["memory"] == "1G"
    command = [sys.executable, "-c", PEAK, str(MAX_MESSAGE_BYTES), *map(str, fields)]
    cost = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < cost < 640 * MIB  # the rest is for wandb, SQLite, and the requests that wait


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
