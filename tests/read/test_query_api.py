"""A Prometheus' query API, scripted."""

from __future__ import annotations

import json

import pytest

from otel_train.read.query_api import QueryApi
from tests.support.otlp_http import Response, http_server


def test_doubled_samples_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may have a sample as often as it came, of which the first counts."""
    series = [{"metric": {"train_rank": "0"}, "values": [[1.5, "2"], [1.5, "2"], [2.5, "4"]]}]
    answer = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}})
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which can't reach this machine's own addresses
    monkeypatch.delenv("no_proxy", raising=False)
    with http_server(lambda _: Response(text=answer)) as server:
        api = QueryApi(f"http://127.0.0.1:{server.server_port}")
        assert api.samples("train_step", 60, 3.0) == [({"train_rank": "0"}, [(1500, 2.0), (2500, 4.0)])]
        ((_, samples),) = api.raw_samples("train_step", 60, 3.0)
    assert len(samples) == 3
