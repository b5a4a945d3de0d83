"""OTLP over HTTP, against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import RingReader
from otel_train.sidecar import exporter
from otel_train.testing import OtlpReceiver
from tests.sidecar.conftest import Rank, serving
from tests.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


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
        while self.server.drips:
            self.wfile.write(b"X-Slow: \r\n")
            time.sleep(0.1)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server that the environment names."""
    with Server() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{made.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_values_arrive_over_http_each_once(rank: Rank, server: Server, tmp_path: Path) -> None:
    """At the path that the specification names; a server that refuses for a while loses nothing."""
    server.refuse = 2
    for step in (1, 2, 3):
        rank.record(step)
    with serving(tmp_path):
        wait_until(lambda: len(server.kept.values(PICKS)) == 3)
    assert (server.kept.values(PICKS), server.paths) == ([1, 3, 6], {"/v1/metrics"})


def test_an_answer_without_an_end_is_given_up(
    rank: Rank, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each read of it is in time; the records go out again once the receiver answers as it should."""
    monkeypatch.setattr(exporter, "SEND_SECONDS", 1.0)
    server.drips = True
    rank.record(1)
    with serving(tmp_path):
        wait_until(lambda: "not ended its answer" in caplog.text)
        assert RingReader(rank.ring.path).cursor.position == 0
        server.drips = False
        wait_until(lambda: RingReader(rank.ring.path).cursor.position == 1)
