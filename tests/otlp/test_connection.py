"""One request to a real server: the meaning of its answer, and a bound on the wait for it."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Verdict
from otel_train.otlp.exporter import Exporter
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, http_server
from tests.support.waiting import wait_until


@contextlib.contextmanager
def raw_server(*parts: bytes) -> Iterator[tuple[str, list[str]]]:
    """Run a server that answers with these bytes and then a byte at a time for 5 s.

    Yields:
        Its address, and which side ended each connection: "server" or "client".
    """
    ends: list[str] = []

    def answer(client: socket.socket) -> None:
        with client:
            try:
                client.recv(1 << 16)
                client.sendall(b"".join(parts))
                for _ in range(100):
                    client.sendall(b"x")
                    time.sleep(0.05)
                ends.append("server")
            except OSError:
                ends.append("client")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", ends
        server.shutdown(socket.SHUT_RDWR)


class RefusingPart(metrics_service_pb2_grpc.MetricsServiceServicer):
    """A gRPC receiver without gzip that refuses some points of each request."""

    def __init__(self) -> None:
        identity_only = [("grpc.compression_enabled_algorithms_bitset", 1)]
        self._server = grpc.server(ThreadPoolExecutor(1), options=identity_only)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, *_: Any) -> ExportMetricsServiceResponse:  # noqa: N802  # the protocol's name
        return ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too new")
        )


PROTOCOLS = ["grpc", "http/protobuf"]
FIRST_LINE = b"HTTP/1.1 200 OK\r\n"


def exporter(monkeypatch: pytest.MonkeyPatch, address: str, protocol: str, **more: str) -> Exporter:
    """Return an exporter to an address."""
    for name, value in {"ENDPOINT": address, "PROTOCOL": protocol, **more}.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    return Exporter(Endpoint.read())


@pytest.mark.parametrize("head", [FIRST_LINE + b"\r\n", FIRST_LINE, b""], ids=["body", "headers", "status"])
def test_endless_answer_leaks_nothing(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try ends within its timeout, and leaves neither a thread nor a descriptor."""
    with raw_server(head) as (address, ends):
        sending = exporter(monkeypatch, address, "http/protobuf", TIMEOUT="0.3")
        threads, before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        answers = [sending.send(b"") for _ in range(3)]
        wait_until(lambda: len(ends) == 3, what="the end of the connections")
        assert ({answer.verdict for answer in answers}, set(ends)) == ({Verdict.WAIT}, {"client"})
        assert "not ended its answer" in answers[0].text
    assert threading.active_count() <= threads + 3
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_late_connection_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try whose connection comes when its time is over ends then, whatever the receiver answers."""
    look_up = socket.getaddrinfo

    def late(*arguments: Any) -> Any:
        time.sleep(0.5)
        return look_up(*arguments)

    with raw_server(FIRST_LINE + b"\r\n") as (address, ends):
        sending = exporter(monkeypatch, address, "http/protobuf", TIMEOUT="0.2")
        monkeypatch.setattr(socket, "getaddrinfo", late)
        assert "not ended its answer" in sending.send(b"").text
        wait_until(lambda: ends != [], what="the end of the connection")
    assert ends == ["client"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1", "http://nowhere.invalid:4317"])
def test_missing_receiver_gives_advice(protocol: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a port without a listener and a host without an address the advice names the variable."""
    answer = exporter(monkeypatch, address, protocol, TIMEOUT="5").send(b"")
    assert (answer.verdict, "OTEL_EXPORTER_OTLP_ENDPOINT" in answer.advice) == (Verdict.WAIT, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_protocol_is_recognised(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GRPC spoken to an HTTP port, and the reverse: the advice names the variable and the other protocol's port."""
    http = FIRST_LINE.replace(b"200 OK", b"400 Bad Request") + b"Content-Length: 1\r\n\r\n"
    with raw_server(http) as (address, _), OtlpReceiver() as receiver:
        other = address if protocol == "grpc" else receiver.address
        answer = exporter(monkeypatch, other, protocol, TIMEOUT="5").send(b"")
    port = "4318" if protocol == "http/protobuf" else "4317"
    assert (answer.verdict, "OTEL_EXPORTER_OTLP_PROTOCOL=" in answer.advice, port in answer.advice) == (
        Verdict.WAIT,
        True,
        True,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_encryption_mismatch_is_recognised(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice says how to speak plain text."""
    with OtlpReceiver() as receiver:
        answer = exporter(monkeypatch, f"https://{receiver.address}", protocol, TIMEOUT="5").send(b"")
    assert (answer.verdict, "http://" in answer.advice) == (Verdict.WAIT, True)


PROTOBUF, JSON = "Content-Type: application/x-protobuf", "Content-Type: application/json; charset=utf-8"


def partial(rejected: int, text: str = "") -> bytes:
    """Return a receiver's answer, encoded."""
    success = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=text)
    return ExportMetricsServiceResponse(partial_success=success).SerializeToString()


def test_partial_success_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial success is taken, and the answer has the number of rejected points and the reason."""
    answer = exporter(monkeypatch, RefusingPart().address, "grpc").send(b"")
    assert (answer.verdict, answer.rejected, answer.text, answer.reason) == (Verdict.TAKEN, 3, "too new", "too_new")


@pytest.mark.parametrize(
    ("head", "body", "rejected", "text"),
    [
        (PROTOBUF, partial(3, "no\ngood"), 3, "no good"),
        (f"{PROTOBUF}\r\nContent-Encoding: gzip", gzip.compress(partial(3, "no")), 3, "no"),
        (PROTOBUF, partial(3, "x" * 100_000), 3, "x" * 500),
        (PROTOBUF, partial(0, "deprecated"), 0, "deprecated"),
        (PROTOBUF, partial(-2), 0, ""),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"no","more":1}}', 2, "no"),
        (JSON, b"{}", 0, ""),
        (JSON, b"", 0, ""),
        ("X-None: 1", b"", 0, ""),
        ("Content-Type: text/html", b"", 0, ""),
        ("Content-Type: text/plain", b"ok", 0, "its answer is no OTLP message (text/plain: ok"),
        (PROTOBUF, b"\xff\xff", 0, "its answer is no OTLP message"),
        (f"{PROTOBUF}\r\nContent-Encoding: gzip", b"plain", 0, "its answer is no OTLP message"),
    ],
    ids=[
        "plain",
        "gzip",
        "long",
        "warning",
        "negative",
        "json",
        "empty json",
        "no json",
        "empty",
        "no page",
        "text",
        "damaged",
        "no gzip",
    ],
)
def test_http_success_is_read(
    head: str, body: bytes, rejected: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a status of success came with is read in any form, and never leads to a second request."""
    first = FIRST_LINE + f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with raw_server(first + body) as (address, _):
        answer = exporter(monkeypatch, address, "http/protobuf").send(b"")
    assert (answer.verdict, answer.rejected, answer.text[: len(text)]) == (Verdict.TAKEN, rejected, text)
    assert bool(answer.text) == bool(text)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html; charset=utf-8", b"Please sign in"),
        ("TEXT/HTML", b"<h1>Sign in</h1>"),
        ("application/xhtml+xml", b"sign in"),
        ("application/json", b"\xef\xbb\xbf\n<!doctype html>"),
        (PROTOBUF.partition(": ")[2], b"<html>Welcome to nginx</html>"),
    ],
)
def test_web_page_takes_nothing(kind: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that comes with a status of success is of no receiver: the data wait, and the advice says for what."""
    first = FIRST_LINE + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with raw_server(first + body) as (address, _):
        answer = exporter(monkeypatch, address, "http/protobuf").send(b"")
    assert (answer.verdict, answer.cause, answer.unanswered) == (Verdict.WAIT, "web page", False)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in answer.what_to_do


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_loopback_needs_no_proxy(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to this machine pass by a proxy of the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with OtlpReceiver() as receiver, raw_server(FIRST_LINE + b"Content-Length: 0\r\n\r\n") as (address, _):
        sending = exporter(monkeypatch, receiver.address if protocol == "grpc" else address, protocol)
        assert sending.send(b"").taken


def test_gzip_falls_back_to_plain(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that answers UNIMPLEMENTED to gzip gets plain requests, and that is logged once."""
    sending = exporter(monkeypatch, RefusingPart().address, "grpc", COMPRESSION="gzip")
    body = ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(schema_url="x" * 1000)])
    assert [sending.send(body.SerializeToString()).taken for _ in range(2)] == [True, True]
    assert [record.getMessage().count("does not take gzip") for record in caplog.records] == [1]


@pytest.mark.parametrize("status", [400, 500])
def test_unread_encoding_falls_back_to_plain(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that calls compressed data wrong gets plain requests; what it refuses plain stays refused."""
    plain = ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(schema_url="x" * 1000)]).SerializeToString()

    def respond(body: bytes) -> Response:
        return Response() if body == plain else Response(status, text="unsupported compression")

    with http_server(respond) as server:
        sending = exporter(
            monkeypatch, f"http://127.0.0.1:{server.server_port}", "http/protobuf", COMPRESSION="deflate"
        )
        verdicts = [sending.send(body).verdict for body in (b"other", plain, plain, b"other")]
    assert verdicts == [Verdict.DATA, Verdict.TAKEN, Verdict.TAKEN, Verdict.DATA]
    assert [record.getMessage().count("does not take deflate") for record in caplog.records] == [1]


def test_second_try_has_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tries together have the time that a request may take: the plain one has what the compressed one left."""

    def respond(body: bytes) -> Response:
        time.sleep(0.3)
        bodies.append(body)
        return Response(415, endless=len(bodies) > 1)

    bodies: list[bytes] = []
    with http_server(respond) as server:
        sending = exporter(monkeypatch, f"http://127.0.0.1:{server.server_port}", "http/protobuf", COMPRESSION="gzip")
        answer = sending.send(b"", longest=4.0)
    assert (len(bodies), answer.verdict) == (2, Verdict.WAIT)
    bound = re.search(r"not ended its answer in ([0-9.e-]+) s", answer.text)
    assert bound
    assert float(bound[1]) <= 3.7
    assert answer.seconds >= 0.3  # of both


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (
            "Content-Type: application/x-protobuf",
            Status(code=3, message="a bad name").SerializeToString(),
            "a bad name",
        ),
        ("Content-Type: text/plain", b"duplicate\nsample", "duplicate sample"),
        ("Content-Type: text/html", b"<html><h1>No</h1></html>", "Bad Request"),
        ("Content-Type: application/x-protobuf", b"\xff\xff", "Bad Request"),
    ],
    ids=["status", "text", "page", "damaged"],
)
def test_error_text_is_read(head: str, body: bytes, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of an error is the receiver's message, in whatever form it comes."""
    first = (
        FIRST_LINE.replace(b"200 OK", b"400 Bad Request") + f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    with raw_server(first + body) as (address, _):
        answer = exporter(monkeypatch, address, "http/protobuf").send(b"")
    assert (answer.cause, answer.text) == ("HTTP 400", text)
