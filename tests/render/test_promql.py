"""The names that Prometheus gives to OTel metrics."""

from __future__ import annotations

import pytest

from otel_train.catalogue import Instrument, cluster_name, rows
from otel_train.render.promql import cluster_series, prometheus_name, rank_series


@pytest.mark.parametrize(
    ("name", "unit", "instrument", "stored"),
    [
        ("stream_mixing.cluster.picks", "{pick}", Instrument.COUNTER, "stream_mixing_cluster_picks_total"),
        ("stream_mixing.switch_rate", "1", Instrument.GAUGE, "stream_mixing_switch_rate_ratio"),
        ("train.step.duration", "s", Instrument.GAUGE, "train_step_duration_seconds"),
        (cluster_name("train/loss"), "", Instrument.GAUGE, "train_cluster_loss"),
        ("ledger.reuse_distance", "{entry}", Instrument.HISTOGRAM, "ledger_reuse_distance_bucket"),
        ("requests.total", "1", Instrument.COUNTER, "requests_total"),
        ("queue.seconds", "s", Instrument.GAUGE, "queue_seconds"),
        ("mix.ratio.of", "1", Instrument.GAUGE, "mix_of_ratio"),
        ("disk.io", "By/s", Instrument.GAUGE, "disk_io_bytes_per_second"),
        ("pace", "{token}/s", Instrument.GAUGE, "pace_per_second"),
        ("a..b__c", "", Instrument.GAUGE, "a_b_c"),
        ("2d.loss", "", Instrument.GAUGE, "_2d_loss"),
    ],
)
def test_names_follow_prometheus_rules(name: str, unit: str, instrument: Instrument, stored: str) -> None:
    """Units and instruments become suffixes, each once (the rules of prometheus/otlptranslator)."""
    assert prometheus_name(name, unit, instrument) == stored


def test_maximum_series_is_a_gauge() -> None:
    """The maximum of a counter is a gauge without `_total`; the cluster's own counter has the suffix."""
    assert cluster_series(rows.EVICTIONS, "_max") == "ledger_cluster_evictions_max"
    assert cluster_series(rows.EVICTIONS) == "ledger_cluster_evictions_total"
    assert rank_series(rows.STALENESS_MAX) == "stream_mixing_staleness_max"
