"""A real Prometheus, and a rank whose clock is an hour ahead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.catalogue.series_names import RANK, rank_series
from otel_train.host_clock import OFFSET_FACT, UNCERTAINTY_FACT, ClockReading
from otel_train.otlp.exporter import Exporter
from otel_train.ring import Fact, Kind
from tests.support.prometheus import running_prometheus
from tests.support.rank_ring import SECOND, Rank, feeds, sender


@pytest.mark.stack
def test_clock_ahead_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are refused and counted as too new; its offset arrives, at the true time, and all of the others'."""
    true, rings = time.time_ns, (tmp_path / "right", tmp_path / "ahead")
    with running_prometheus(tmp_path) as prometheus:
        prometheus.export_here(monkeypatch)
        for rank, moved in enumerate((0, 3600 * SECOND)):
            rings[rank].mkdir()
            monkeypatch.setattr(time, "time_ns", lambda moved=moved: true() + moved)
            facts: dict[str, Fact] = {OFFSET_FACT: moved / 1e9, UNCERTAINTY_FACT: 0.01, **ClockReading.now().facts}
            writer = Rank(rings[rank], rank=rank, records=256, first_time=time.time_ns() - 120 * SECOND, facts=facts)
            writer.record(*range(1, 61), kind=Kind.RANK if moved else Kind.BOTH)
            following, exporter = feeds(rings[rank]), Exporter()
            sending = sender(exporter, rings[rank])
            for _ in range(3):
                sending.send_all(following)
            assert exporter.clock_offset is not None
            assert exporter.clock_offset.wrong is False, "it is compared by time.time, which is right here"
            assert writer.reader.cursor.position == (60 if not moved else 0), "what nobody takes stays in the ring"
        steps = prometheus.samples(rank_series(rows.STEP))
        offsets = prometheus.get("query", query=f"last_over_time({rank_series(rows.CLOCK_OFFSET)}[2m])")["result"]
    assert [(dict(labels)[RANK], len(samples)) for labels, samples in steps.items()] == [("0", 60)]
    told = {series["metric"][RANK]: round(float(series["value"][1])) for series in offsets}
    assert told == {"0": 0, "1": 3600}
