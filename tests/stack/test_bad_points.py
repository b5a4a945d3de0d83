"""The collector of the compose stack in front of a receiver that refuses: what it gives up, and when."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, ResourceMetrics

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.otlp_http import Response, http_server
from tests.support.ports import answers, free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
BAD, PROBE = "bad", "otelcol.exporter.probe"
TIME = 1
HOUR, MINUTE = 3600 * 10**9, 60 * 10**9
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
SENDERS, METRICS = 40, 10
BROKEN = (
    Response(404, text="404 page not found"),
    Response(400, text="out of bounds: timestamp is too far in the future"),
    Response(500, text="write to WAL: no space left on device"),
)
"""Answers of a receiver that takes nothing."""
STRANGE = (
    Response(200, {"Content-Type": "text/html"}, "<html>Log in</html>"),
    Response(301, {"Location": "/login"}),
    Response(503, {"Retry-After": "3600"}),
    Response(429, {"Retry-After": "Wed, 01 Jan 2200 00:00:00 GMT"}),
)
"""Answers of what is no receiver, or one that asks for a longer pause than is good for everybody."""


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
    window: int = 0
    """Seconds for which it takes what is older than the newest point of a series; 0 if age does not matter."""
    newest: dict[str, int] = field(default_factory=dict)
    """The newest time of each series, in ns."""

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
        if self.window:
            return self.judge(parts)
        if BAD in names:
            return Response(500, text="no such thing as bad")
        if self.behind and any(metric.gauge.data_points[0].time_unix_nano > TIME for metric in metrics):
            return Response(400, text="out of bounds: timestamp is too far in the future")
        self.stored += names
        return Response()

    def judge(self, parts: Sequence[ResourceMetrics]) -> Response:
        """Return Prometheus' answer: a line for each metric that it refuses (see its `memSeries.appendable`)."""
        lines, newest = [], max(self.newest.values(), default=0)
        series = {}
        for part in parts:
            for metric in part.scope_metrics[0].metrics:
                if metric.HasField("sum") and metric.sum.aggregation_temporality != CUMULATIVE:
                    lines.append(f'invalid temporality and type combination for metric "{metric.name}"')
                    continue
                if metric.name.startswith(BAD):
                    lines.append("no such thing")
                name = f"{part.resource.attributes[0].value.string_value} {metric.name}"
                for point in metric.gauge.data_points:
                    series[name] = point.time_unix_nano
                    last = self.newest.get(name, 0)
                    if point.time_unix_nano == last and point.as_double:
                        text = f"duplicate sample for timestamp {last // 10**6}; overrides not allowed: existing 0, "
                        lines.append(f"{text}new value {point.as_double:g}")
                    elif point.time_unix_nano < newest - self.window * 10**9 and (
                        point.time_unix_nano < newest - HOUR or point.time_unix_nano < last
                    ):
                        lines.append("too old sample")
        if lines:
            return Response(500 if "temporality" in "".join(lines) else 400, text="\n".join(lines) + "\n")
        self.newest |= {name: max(time_ns, self.newest.get(name, 0)) for name, time_ns in series.items()}
        self.stored += series
        return Response()


@dataclass(frozen=True)
class Collector:
    """A running collector."""

    address: str
    log: Path

    def send(self, *names: str) -> None:
        """Send a request of one point of each metric."""
        request = ExportMetricsServiceRequest()
        metrics = metrics_of(request, "sender")
        for name in names:
            metrics.add(name=name).gauge.data_points.add(time_unix_nano=TIME, as_int=1)
        self.export(request)

    def export(self, request: ExportMetricsServiceRequest) -> None:
        """Send a request."""
        with grpc.insecure_channel(self.address) as channel:
            MetricsServiceStub(channel).Export(request, timeout=10)  # type: ignore[no-untyped-call]


def metrics_of(request: ExportMetricsServiceRequest, sender: str) -> RepeatedCompositeFieldContainer[Metric]:
    """Return the metrics of a sender, to add to."""
    part = request.resource_metrics.add()
    part.resource.attributes.add(key="service.name").value.string_value = sender
    return part.scope_metrics.add().metrics


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
            wait_until(lambda: receiver.refused > before + 2, 60, f"tries after {answer}", log=collector.log)  # noqa: B023
        wait_until(lambda: receiver.probed, 30, "a point of the collector's own", log=collector.log)
        assert "Refused" not in collector.log.read_text()
        receiver.broken = None
        wait_until(lambda: {"one", "two", "three", PROBE} <= set(receiver.stored), 30, "all good points")
        wait_until(
            lambda: "Refused, of service.name=sender: no such thing as bad; metrics: bad" in collector.log.read_text(),
            60,
            "a refusal",
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


def test_strange_answers_lose_nothing(tmp_path: Path) -> None:
    """A page to log in takes nothing, and a Retry-After of an hour stops nobody for longer than `max_interval`."""
    receiver = Receiver(STRANGE[0])
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        collector.send("kept")
        for answer in STRANGE:
            receiver.broken, before = answer, receiver.refused
            wait_until(lambda: receiver.refused > before + 1, 60, f"tries after {answer}", log=collector.log)  # noqa: B023
        receiver.broken = None
        wait_until(lambda: receiver.stored == ["kept"], 60, "the point", log=collector.log)
        assert server.paths == {"/api/v1/otlp/v1/metrics"}


def test_fleet_costs_few_requests(tmp_path: Path) -> None:
    """Delta counters and second values of a fleet: a dozen requests, and nothing good of anybody is given up."""
    receiver = Receiver(window=24 * 3600)
    now = time.time_ns()

    def batch(second: int) -> ExportMetricsServiceRequest:
        request = ExportMetricsServiceRequest()
        for sender in range(SENDERS):
            metrics = metrics_of(request, f"pod{sender}")
            for index in range(METRICS):
                point = metrics.add(name=f"m{index}").gauge.data_points.add()
                point.time_unix_nano = now if second and index % 2 else now + second * 10**9
                point.as_double = second
                if second:
                    total = metrics.add(name=f"delta{index}").sum
                    total.aggregation_temporality = DELTA
                    total.data_points.add(time_unix_nano=now, as_int=1)
        return request

    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        for second, most in enumerate((1, 12, 8)):
            receiver.requests.clear()
            receiver.stored.clear()
            collector.export(batch(second))
            good = [f"pod{sender} m{index}" for sender in range(SENDERS) for index in range(METRICS)]
            good = [name for name in good if not second or int(name[-1]) % 2 == 0]
            last = f"otelcol-train {PROBE}"
            wait_until(lambda: set(good) <= {*receiver.stored}, 30, "what is good", log=collector.log)  # noqa: B023
            wait_until(lambda: not second or last in receiver.stored, 30, "the end")  # noqa: B023
            assert len(receiver.requests) <= most
    refusals = re.findall(r'Refused, of service.name=(\w+): (.*); metrics.*"points": (\d+)}', collector.log.read_text())
    whole = {(f"pod{sender}", points) for sender in range(SENDERS) for points in (str(METRICS), str(METRICS // 2))}
    assert len(refusals) >= SENDERS
    assert {(sender, points) for sender, _, points in refusals} <= whole


def test_search_is_bounded(tmp_path: Path) -> None:
    """What was refused before costs 300 requests a batch at most, and holds up nobody else's points."""
    receiver = Receiver(window=24 * 3600)
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        for most in (1200, 300):
            receiver.requests.clear()
            receiver.stored.clear()
            request = ExportMetricsServiceRequest()
            bad = metrics_of(request, "many")
            for index in range(300):
                bad.add(name=f"{BAD}{index}").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
            metrics_of(request, "good").add(name="m").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
            collector.export(request)
            wait_until(lambda: f"otelcol-train {PROBE}" in receiver.stored, 60, "the end", log=collector.log)
            assert "good m" in receiver.stored
            assert len(receiver.requests) <= most
            assert {"m"} in receiver.requests[:3]
        wait_until(lambda: '"undivided"' in collector.log.read_text(), 60, "what is given up undivided")


def test_requests_are_bounded(tmp_path: Path) -> None:
    """A refusal costs a receiver the square of its metrics, and must come in time: no request has more than 8,192."""
    receiver = Receiver(window=24 * 3600)
    count = 20_000
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        for _ in range(2):
            receiver.requests.clear()
            receiver.stored.clear()
            request = ExportMetricsServiceRequest()
            metrics_of(request, "before").add(name="m").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
            many = metrics_of(request, "many")
            for index in range(count):
                many.add(name=f"m{index}").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
            total = many.add(name="delta").sum
            total.aggregation_temporality = DELTA
            total.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
            collector.export(request)
            wait_until(lambda: f"otelcol-train {PROBE}" in receiver.stored, 60, "the end", log=collector.log)
            assert len(set(receiver.stored)) == count + 2
            assert max(map(len, receiver.requests)) <= 8192


def test_short_window_judges_each_series(tmp_path: Path) -> None:
    """With a window of ten minutes, what is too old for a series that went on may be new in another one."""
    receiver, now = Receiver(window=600), time.time_ns()
    begin, request = ExportMetricsServiceRequest(), ExportMetricsServiceRequest()
    metrics_of(begin, "ahead").add(name="m").gauge.data_points.add(time_unix_nano=now, as_int=1)
    for sender, age in (("ahead", 20), ("slow", 30), ("dead", 90)):
        metrics = metrics_of(request, sender)
        for index in range(6):
            metrics.add(name=f"m{index or ''}").gauge.data_points.add(
                time_unix_nano=now - age * MINUTE + index, as_int=1
            )
    with http_server(receiver.respond) as server, running_collector(tmp_path, server.server_port) as collector:
        collector.export(begin)
        wait_until(lambda: bool(receiver.stored), 30, "the first point", log=collector.log)
        collector.export(request)
        wait_until(lambda: f"otelcol-train {PROBE}" in receiver.stored, 30, "the end", log=collector.log)
        wait_until(lambda: "service.name=dead" in collector.log.read_text(), 60, "a refusal")
    assert {name.split()[0] for name in receiver.stored if name != "ahead m"} == {"ahead", "slow", "otelcol-train"}
    refused = re.findall(
        r"Refused, of service.name=(\w+): too old sample; metrics: ([^\t]*)", collector.log.read_text()
    )
    assert refused == [("dead", "m, m1, m2, m3, m4, m5"), ("ahead", "m")]
