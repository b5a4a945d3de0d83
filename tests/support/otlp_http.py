"""A receiver of OTLP over HTTP, for whoever exports with the standard variables."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import Mock

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.testing import OtlpReceiver


class Server(ThreadingHTTPServer):
    """Keeps the metrics that it is sent, after it has refused as many requests as it is to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept = OtlpReceiver()
        self.refuse = 0
        self.drips = False
        self.paths: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Keep its numbers, or ask to come again."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.add(self.path)
        refused, self.server.refuse = self.server.refuse > 0, self.server.refuse - 1
        if not refused:
            self.server.kept.Export(ExportMetricsServiceRequest.FromString(body), Mock())
        self.send_response(503 if refused else 200)
        if refused:
            self.send_header("Retry-After", "1000")
        self.flush_headers()
        while self.server.drips:
            self.wfile.write(b"X-Slow: \r\n")
            time.sleep(0.1)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server that the environment names during the block."""
    with Server() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{made.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()
