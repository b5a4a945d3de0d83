"""That `otel-train send` ends in time, whatever a receiver or a name server does."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from otel_train.endpoint import Endpoint
from otel_train.ring import Kind
from otel_train.send.backlog import Tally
from otel_train.send.time_limit import BoundedExporter, TimeLimit
from tests.support.mounts import require_root
from tests.support.otlp_http import Response, http_server
from tests.support.rank_ring import Rank
from tests.support.send_command import begin, end


def leave(run: Path) -> None:
    """Leave a ring behind with two records."""
    left = Rank(run)
    left.record(1, 2, kind=Kind.CLUSTER)
    left.ring.close(2, 0)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_silent_receiver_ends_in_time(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ends with the time of the whole call, also where it may take longer by itself."""
    leave(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        outcome = end(begin("--timeout", "8", tmp_path), 50)
    assert (outcome.code, outcome.figures["left"]) == (1, 2)
    reason = outcome.figures["directories"][0]["reason"]
    assert ("does not acknowledge" in reason, "looked up" in reason) == (True, False)


def test_answer_outlives_last_request(tmp_path: Path) -> None:
    """That a request had no time left for an answer hides none that a receiver has given before."""
    responses = iter((Response(503), Response(endless=True)))
    with http_server(lambda _: next(responses)) as server:
        variables = {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "PROTOCOL": "http/protobuf"}
        endpoint = Endpoint.read({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})
        with BoundedExporter(endpoint, TimeLimit(time.monotonic() + 4.0)) as exporter:
            tally = Tally(tmp_path, exporter)
            answers = [exporter.send(b"") for _ in range(2)]
            for answer in answers:
                tally.failing(answer)
    assert "not ended its answer" in answers[1].text
    assert tally.failure == answers[0]


def test_unanswered_name_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time holds where the receiver's name is looked up, which no library bounds."""
    require_root("give a process a name server of its own")
    leave(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318")
    settings = tmp_path / "resolv.conf"
    settings.write_text("nameserver 127.0.0.99\noptions timeout:30 attempts:5\n")
    within = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(settings)]
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.99", 53))
        outcome = end(begin("--timeout", "8", tmp_path, within=within), 50)
    assert (outcome.code, outcome.figures["left"]) == (1, 2)
    assert "its name may be looked up" in outcome.figures["directories"][0]["reason"]
