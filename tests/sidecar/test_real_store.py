"""A sidecar's process that is killed in a request, against an HTTP store that takes no repetitions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader
from otel_train.sidecar.points import LIVE_SUFFIX
from tests.sidecar.conftest import FIRST_TIME, Rank
from tests.sidecar.test_refusals import no_window
from tests.support.otlp_store import Store
from tests.support.waiting import wait_until


class Server(ThreadingHTTPServer):
    """Hands requests to a store; it may keep one and never answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = no_window("nothing")
        self.silent = threading.Event()
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Answer as the store does."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            answer = self.server.store.send(body)
        if self.server.silent.is_set():
            threading.Event().wait(20)
        self.send_response(200 if answer.taken else 409)
        self.send_header("Content-Length", str(len(answer.text)))
        self.end_headers()
        self.wfile.write(answer.text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server that the environment names."""
    with Server() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"127.0.0.1:{made.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def values(store: Store) -> dict[object, set[bytes]]:
    """Return what each series was sent with at each time, the sidecar's own apart."""
    found: dict[object, set[bytes]] = defaultdict(set)
    for point in (point for sent in list(store.requests) for point in sent):
        if not point.instance.endswith(LIVE_SUFFIX):
            found[point.series, point.time_ns].add(point.point)
    return found


def test_kill_during_request_loses_nothing(server: Server, tmp_path: Path) -> None:
    """What was kept without an acknowledgement comes again, is refused as a repetition, and what is new arrives."""
    rank = Rank(tmp_path, records=512)
    command = [sys.executable, "-m", "otel_train.sidecar", str(tmp_path), "--rank-interval", "0"]
    server.silent.set()
    for step in range(1, 31):
        rank.record(step, Kind.BOTH)
    with subprocess.Popen(command) as first:
        wait_until(lambda: len(server.store.requests) == 1)
        first.kill()
    server.silent.clear()
    for step in range(31, 61):
        rank.record(step, Kind.BOTH)
    rank.ring.close(60, 0)
    with subprocess.Popen([*command, "--linger", "60"]) as second:
        wait_until(lambda: RingReader(rank.ring.path).cursor.position == 60, 60)
        second.terminate()
        assert second.wait(60) == 0
    assert server.store.steps() == [FIRST_TIME + step * 10**9 for step in range(1, 61)]
    assert {len(found) for found in values(server.store).values()} == {1}
    assert RingReader(rank.ring.path).cursor.refused == 0
