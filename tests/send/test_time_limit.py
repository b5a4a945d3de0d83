"""That `otel-train send` ends in time, whatever a receiver or a name server does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from otel_train.ring import Kind
from tests.support.mounts import require_root
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
