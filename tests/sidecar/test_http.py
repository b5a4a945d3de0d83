"""OTLP over HTTP, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import RingReader
from tests.sidecar.conftest import Rank, serving
from tests.support.otlp_http import Server, serving_http
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server that the environment names."""
    with serving_http(monkeypatch) as made:
        yield made


def test_values_arrive_once_over_http(rank: Rank, server: Server, tmp_path: Path) -> None:
    """At the path that the specification names; a server that refuses for a while loses nothing."""
    server.refuse = 2
    for step in (1, 2, 3):
        rank.record(step)
    with serving(tmp_path):
        wait_until(lambda: len(server.kept.values(PICKS)) == 3)
    assert (server.kept.values(PICKS), server.paths) == ([1, 3, 6], {"/v1/metrics"})


def test_endless_answer_is_abandoned(
    rank: Rank, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each read of it is in time; the records go out again once the receiver answers as it should."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    server.drips = True
    rank.record(1)
    with serving(tmp_path):
        wait_until(lambda: "not ended its answer" in caplog.text)
        assert RingReader(rank.ring.path).cursor.position == 0
        server.drips = False
        wait_until(lambda: RingReader(rank.ring.path).cursor.position == 1)
