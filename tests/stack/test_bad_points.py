"""The collector of the compose stack in front of a receiver that refuses: what it gives up, and when."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.otlp_http import Response, http_server
from tests.support.ports import answers, free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
BAD, PROBE = "bad", "otelcol.exporter.probe"
TIME = 1
BROKEN = (
    Response(404, text="404 page not found"),
    Response(400, text="out of bounds: timestamp is too far in the future"),
    Response(500, text="write to WAL: no space left on device"),
)
"""Answers of a receiver that takes nothing."""


@dataclass
class Receiver:
    """A receiver that refuses a request for one bad point, or all requests."""

    broken: Response | None = None
    """Its answer to all requests."""
    requests: list[set[str]] = field(default_factory=list)
    """The metrics of each request that was not refused for a fault of its own."""
    stored: list[str] = field(default_factory=list)
    refused: int = 0
    behind: bool = False
    """Whether its clock, as it sees it, is behind the collector's."""
    late: str = ""
    """A metric of which it has newer points."""
    probed: bool = False
    """Whether it has refused a point of the collector's own."""

    def respond(self, body: bytes) -> Response:
        """Return its answer."""
        parts = ExportMetricsServiceRequest.FromString(body).resource_metrics
        metrics = [metric for part in parts for scope in part.scope_metrics for metric in scope.metrics]
        names = [metric.name for metric in metrics]
        if self.broken is not None:
            self.refused += 1
            self.probed = self.probed or names == [PROBE]
            return self.broken
        self.requests.append(set(names))
        if self.late in names:
            return Response(400, text="out of order sample")
        if BAD in names:
            return Response(500, text="no such thing as bad")
        if self.behind and any(metric.gauge.data_points[0].time_unix_nano > TIME for metric in metrics):
            return Response(400, text="out of bounds: timestamp is too far in the future")
        self.stored += names
        return Response()


@dataclass(frozen=True)
class Collector:
    """A running collector."""

    address: str
    log: Path

    def send(self, *names: str) -> None:
        """Send a request of one point of each metric."""
        request = ExportMetricsServiceRequest()
        part = request.resource_metrics.add()
        part.resource.attributes.add(key="service.name").value.string_value = "sender"
        metrics = part.scope_metrics.add().metrics
        for name in names:
            metrics.add(name=name).gauge.data_points.add(time_unix_nano=TIME, as_int=1)
        with grpc.insecure_channel(self.address) as channel:
            MetricsServiceStub(channel).Export(request, timeout=10)  # type: ignore[no-untyped-call]


@contextmanager
def running_collector(home: Path, receiver_port: int) -> Iterator[Collector]:
    """Run the collector with a receiver in Prometheus' place, until the end of the block."""
    grpc_port, http_port, health = (free_port() for _ in range(3))
    environment = clean_environment(
        FAULTS_HOST="127.0.0.1",
        FAULTS_GRPC_PORT=str(grpc_port),
        FAULTS_HTTP_PORT=str(http_port),
        FAULTS_HEALTH_PORT=str(health),
        OTEL_TRAIN_PROMETHEUS=f"http://127.0.0.1:{receiver_port}",
        OTEL_TRAIN_BRIDGE=f"127.0.0.1:{free_port()}",
        OTEL_TRAIN_BRIDGE_TOKEN=secrets.token_urlsafe(),
        OTEL_TRAIN_QUEUE_DIR=str(home / "queue"),
    )
    configs = [f"--config={programs.ROOT}/{name}" for name in ("collector/local.yaml", "tests/faults/collector.yaml")]
    log = home / "collector.log"
    with running_process([str(programs.collector()), *configs], log, environment):
        wait_until(lambda: answers(f"http://127.0.0.1:{health}"), 60, "the collector's start", log=log)
        yield Collector(f"127.0.0.1:{grpc_port}", log)


def test_refusal_of_everything_loses_nothing(tmp_path: Path) -> None:
    """While all is refused nothing is given up; then what is bad is, and an offender costs few requests later on."""
    receiver = Receiver(BROKEN[0])
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        collector.send("one", "two", BAD, "three")
        for answer in BROKEN:
            receiver.broken, before = answer, receiver.refused
            wait_until(lambda: receiver.refused > before + 2, 30, f"tries after {answer}", log=collector.log)  # noqa: B023
        wait_until(lambda: receiver.probed, 30, "a point of the collector's own", log=collector.log)
        assert "Refused" not in collector.log.read_text()
        receiver.broken = None
        wait_until(lambda: {"one", "two", "three", PROBE} <= set(receiver.stored), 30, "all good points")
        wait_until(
            lambda: "Refused, of service.name=sender: no such thing as bad; metrics: bad" in collector.log.read_text(),
            10,
        )
        before = len(receiver.requests)
        collector.send("four", BAD, "five")
        wait_until(lambda: len(receiver.requests) > before + 3, 30, "the next batch")
        assert receiver.requests[before:] == [{"four", "five"}, {BAD}, {PROBE}, {BAD}]
        assert sorted(receiver.stored) == sorted(["one", "two", "three", "four", "five", PROBE, PROBE])
        receiver.behind, before = True, len(receiver.requests)
        collector.send("six", BAD)
        wait_until(lambda: len(receiver.requests) > before + 4, 30, "a batch of a collector whose clock is wrong")
        assert receiver.requests[before:] == [{"six"}, {BAD}, {PROBE}, {PROBE}, {BAD}]


def test_repetition_is_no_refusal(tmp_path: Path) -> None:
    """A point that is out of order because it came before an answer was lost is counted as a repetition."""
    receiver = Receiver()
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        collector.send("first")
        wait_until(lambda: receiver.stored == ["first"], 30, "a batch that is taken", log=collector.log)
        receiver.broken, receiver.late = Response(502), "again"
        collector.send("again")
        wait_until(lambda: receiver.refused > 0, 30, "a try without an answer", log=collector.log)
        receiver.broken = None
        wait_until(lambda: "metrics: again" in collector.log.read_text(), 30, "a refusal", log=collector.log)
        receiver.late = "new"
        collector.send("new")
        wait_until(lambda: "metrics: new" in collector.log.read_text(), 30, "another refusal", log=collector.log)
    reasons = re.findall(r'metrics: (\w+)\t.*"reason": "(\w+)"', collector.log.read_text())
    assert reasons == [("again", "repetition"), ("new", "out_of_order")]
