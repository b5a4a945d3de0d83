"""The bridge's own metrics, sent by the real exporter to a receiver."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from otel_train.bridge import Bridge, BridgeConfig
from otel_train.catalogue import BRIDGE, rows
from otel_train.otlp.announcing_exporter import AnnouncingExporter
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, keeping, serving_http
from tests.support.step_requests import split_request, step_request
from tests.support.waiting import wait_until


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, float]]]:
    """Give the last value of each metric at the receiver that the environment names."""
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        yield lambda: {point.name: point.value for point in receiver.points}


def test_rows_and_backlog_are_exported(collected: Callable[[], dict[str, float]], start: Callable[..., Any]) -> None:
    """Rows, the backlog and its growing age, duplicates and refused points are exported."""
    running = start(settle=60)
    running.send(step_request(1, {"loss": 0.5}), step_request(2, {"loss": 0.5}), step_request(2, {"loss": 0.5}))
    running.send(step_request(4, {"n" * 600: 0.5}))
    running.send(*split_request(step_request(3, {"loss": 0.5}))[:-1])
    expected = {
        rows.BRIDGE_ROWS.name: 2,
        rows.BRIDGE_PARTIAL_ROWS.name: 0,
        rows.BRIDGE_WAITING.name: 2,
        rows.BRIDGE_DUPLICATES.name: 2,
        rows.BRIDGE_REFUSED_POINTS.name: 1,
    }
    wait_until(lambda: expected.items() <= collected().items(), 30, f"{expected}")
    wait_until(lambda: collected()[rows.BRIDGE_LAG.name] > 1, 30, "an age of a second")
    assert set(collected()) == {row.name for row in BRIDGE}


def test_partial_rows_are_counted(collected: Callable[[], dict[str, float]], start: Callable[..., Any]) -> None:
    """A step that lacks points after the settle time is counted as a partial row."""
    start(settle=0).send(*split_request(step_request(1, {"loss": 0.5}))[:-1])
    wait_until(lambda: collected().get(rows.BRIDGE_PARTIAL_ROWS.name) == 1, 30, "a partial row")


def test_refusing_receiver_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, start: Callable[..., Any]
) -> None:
    """A receiver that refuses the metrics is logged once, not at every export."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    refusing = start(token="secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{refusing.address}")
    bridge = Bridge(BridgeConfig(state=refusing.state.with_name("other"), listen="127.0.0.1:0"))
    with bridge:
        wait_until(lambda: "own metrics are not taken" in caplog.text, 30, "the warning")
        time.sleep(0.5)
    assert caplog.text.count("own metrics are not taken") == 1


def test_environment_names_protocol(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]) -> None:
    """Metrics go over HTTP where the environment says so, to /v1/metrics, past a proxy, also without a scheme."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    receiver = OtlpReceiver()
    with serving_http(monkeypatch, keeping(receiver)) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"127.0.0.1:{server.server_port}")
        start()
        wait_until(lambda: bool(receiver.values(rows.BRIDGE_WAITING.name)), 30, "the bridge's metrics")
        assert server.paths == {"/v1/metrics"}


def test_rejected_metrics_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A partial success is logged once a text, with count and reason, and is no failure: newer totals follow."""
    answers = iter(("at 17", "at 18", "no"))

    def respond(_: bytes) -> Response:
        success = {"rejectedDataPoints": 2, "errorMessage": next(answers)}
        return Response(200, {"Content-Type": "application/json"}, json.dumps({"partialSuccess": success}))

    with serving_http(monkeypatch, respond):
        exporter = AnnouncingExporter(logging.getLogger(__name__), lost="lost", partly="some rejected", back="back")
        results = [exporter.export(MetricsData(resource_metrics=[])) for _ in range(3)]
    assert results == [MetricExportResult.SUCCESS] * 3
    messages = [record.getMessage() for record in caplog.records]
    assert [text.partition("partial success: ")[2] for text in messages] == ["2 points, at 17", "2 points, no"]
