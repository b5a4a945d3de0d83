"""OTLP over HTTP, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.bridge import BridgeConfig, read_run
from otel_train.catalogue import cluster_name, rows
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, keeping, serving_http
from tests.support.rank_ring import Rank, serving
from tests.support.running_bridge import RunningBridge
from tests.support.waiting import wait_until


def test_values_arrive_once_over_http(rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the path that the specification names; a server that refuses for a while loses nothing."""
    receiver, refusals = OtlpReceiver(), [Response(503, {"Retry-After": "1000"})] * 2
    keep, picks = keeping(receiver), cluster_name(rows.PICKS.name)
    rank.record(1, 2, 3)
    with (
        serving_http(monkeypatch, lambda body: refusals.pop() if refusals else keep(body)) as server,
        serving(tmp_path),
    ):
        wait_until(lambda: len(receiver.values(picks)) == 3)
    assert (receiver.values(picks), server.paths, refusals) == ([1, 3, 6], {"/v1/metrics"}, [])


def test_endless_answer_is_abandoned(
    rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer without an end is given up; the records are sent again once the receiver answers as it should."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    response = Response(endless=True)
    rank.record(1)
    with serving_http(monkeypatch, lambda _: response), serving(tmp_path):
        wait_until(lambda: "not ended its answer" in caplog.text)
        assert rank.reader.cursor.position == 0
        response = Response()
        wait_until(lambda: rank.reader.cursor.position == 1)


def test_bridge_takes_sidecars_requests(rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that sends over HTTP to a bridge's own HTTP port: each step is a row."""
    bridge = RunningBridge(BridgeConfig(state=tmp_path / "state", listen="127.0.0.1:0", http_listen="127.0.0.1:0"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{bridge.bridge.http_address}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    rank.record(1, 2, 3)
    with serving(tmp_path):
        bridge.wait(3)
    bridge.stop()
    history = read_run(bridge.state, "run")
    assert [row.values[rows.PICKS.wandb_key] for row in history] == [1, 2, 3]
