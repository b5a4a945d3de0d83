"""A run is read from a real Prometheus as from its rings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.read.history import SourceError
from otel_train.read.load import load
from otel_train.ring import End
from otel_train.sidecar import Sidecar
from tests.support.ports import free_port
from tests.support.prometheus import running_prometheus
from tests.support.recorded_runs import Attempt
from tests.support.train_job import Train

STEPS = 30


@pytest.mark.stack
def test_prometheus_agrees_with_rings(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus has each step's cluster-wide values, counters by interval, the reuse distances and the modalities."""
    # Two steps in one millisecond would be one to Prometheus.
    train(tmp_path / "rings", steps=STEPS, streams=12, pause=0.003)
    with running_prometheus(tmp_path) as prometheus:
        prometheus.export_here(monkeypatch)
        sidecar = Sidecar(tmp_path / "rings", rank_interval=0.0)
        sidecar.wind_up()
        sidecar.run()
        time.sleep(1)
        history = load(prometheus.url, run="run-1").history
        with pytest.raises(SourceError, match="has no run other"):
            load(prometheus.url, run="other")
    expected = load(str(tmp_path / "rings")).history
    assert [*history.cluster.steps] == [*expected.cluster.steps] == [*range(1, STEPS + 1)]
    assert set(history.modalities) == set(expected.modalities)
    assert (history.world_size, history.reuse[:-1]) == (1, expected.reuse[:-1])
    for row in (rows.PICKS, rows.FALSE_EVICTIONS, rows.MIX_DIVERGENCE, rows.STALENESS_MAX):
        assert history.cluster.column(row.wandb_key) == pytest.approx(expected.cluster.column(row.wandb_key)), row.name
    assert history.ranks[0].steps[-1] == STEPS
    assert (history.dropped, history.exit_code) == (0, 0)


@pytest.mark.stack
def test_prometheus_tells_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose rank 1 failed, and whose rank 0 was ended for it, failed on rank 1."""
    (tmp_path / "rings").mkdir()
    first, second = Attempt(run="run", began=time.time() - 60, every=0.5, records=9).write(tmp_path / "rings")
    first.close(9, time.time_ns(), End.SIGNAL, "SIGTERM")
    second.close(9, time.time_ns(), error="SystemExit(3)")
    for ring in (first, second):
        ring.release()
    with running_prometheus(tmp_path) as prometheus:
        prometheus.export_here(monkeypatch)
        sidecar = Sidecar(tmp_path / "rings", rank_interval=0.0)
        sidecar.wind_up()
        sidecar.run()
        history = load(prometheus.url, run="run").history
    assert (history.exit_code, history.failed_rank) == (3, 1)


def test_silent_prometheus_is_refused() -> None:
    """A Prometheus that does not answer is an error of one line."""
    with pytest.raises(SourceError, match="does not answer") as raised:
        load(f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(raised.value)
