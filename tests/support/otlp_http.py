"""A receiver of OTLP over HTTP, whose answers a test chooses."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.testing import OtlpReceiver


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    endless: bool = False
    """Whether headers follow each other until the client gives up."""


Respond = Callable[[bytes], Response]
"""Returns the answer to a request's body, decompressed."""


class HttpServer(ThreadingHTTPServer):
    """A server on a free port of the loopback.

    Args:
        respond: Returns the answers.
    """

    daemon_threads = True

    def __init__(self, respond: Respond) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.date = ""
        """Date of all answers; empty for the right one."""
        self.paths: set[str] = set()
        """The paths of all requests."""
        self.only_path = ""
        """Path beside which nothing is there; empty where each path is."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def do_POST(self) -> None:  # the name is the library's
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.add(self.path)
        if self.server.only_path not in ("", self.path):
            response = Response(404)
        else:
            response = self.server.respond(
                gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            )
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.text)))
        self.flush_headers()
        with contextlib.suppress(OSError):
            while response.endless:
                self.wfile.write(b"X-Slow: \r\n")
                time.sleep(0.1)
        self.end_headers()
        self.wfile.write(response.text.encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.server.date or super().date_time_string(timestamp)

    def log_message(self, *_: object) -> None:
        pass


def keeping(receiver: OtlpReceiver) -> Respond:
    """Return what hands the numbers of each request to a receiver."""

    def respond(body: bytes) -> Response:
        receiver.take(ExportMetricsServiceRequest.FromString(body))
        return Response()

    return respond


@contextlib.contextmanager
def http_server(respond: Respond) -> Iterator[HttpServer]:
    """Run a server during the block."""
    with HttpServer(respond) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@contextlib.contextmanager
def serving_http(monkeypatch: pytest.MonkeyPatch, respond: Respond) -> Iterator[HttpServer]:
    """Run a server that the environment names during the block."""
    with http_server(respond) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        yield server
