"""A real Prometheus that is sent the same records again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.catalogue.series_names import cluster_series, rank_series
from otel_train.otlp.answers import Answer, Verdict
from otel_train.otlp.exporter import Exporter
from otel_train.ring import Kind, RingReader
from tests.support.prometheus import running_prometheus
from tests.support.rank_ring import Rank, feeds, sender


@pytest.mark.stack
def test_killed_sidecars_repeat_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our configuration a request that is built again after a kill is taken: nothing in it has another value."""
    steps, refusals, rings = 60, [], tmp_path / "rings"

    class Forgetful:
        def __init__(self) -> None:
            self.exporter, self.lose = Exporter(), False

        def send(self, body: bytes) -> Answer:
            answer = self.exporter.send(body)
            if not answer.taken:
                refusals.append(answer)
            return Answer(verdict=Verdict.WAIT, cause="lost", unanswered=True) if self.lose else answer

    rings.mkdir()
    with running_prometheus(tmp_path) as prometheus:
        prometheus.export_here(monkeypatch)
        exporter = Forgetful()
        rank = Rank(rings, records=256, first_time=time.time_ns() - 120 * 10**9)
        for step in range(1, steps + 1):
            rank.record(step, kind=Kind.BOTH)
            if step % 10 == 0:
                exporter.lose = step % 20 == 0
                # Each of them is a sidecar that was just started.
                sender(exporter, tmp_path).send_all(feeds(rings))
        exporter.lose = False
        sender(exporter, tmp_path).send_all(feeds(rings))
        for name in (rank_series(rows.STEP), cluster_series(rows.PICKS)):
            assert [len(samples) for samples in prometheus.samples(name).values()] == [steps], name
    assert (refusals, RingReader(rank.ring.path).cursor.position) == ([], steps)
