"""`doctor --receiver` against real stores: a finding for each setting that one lacks, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.probe.check_receiver import check_receiver
from tests.support.prometheus import running_prometheus
from tests.support.victoria_metrics import running_victoria_metrics

pytestmark = pytest.mark.stores
OF_PROMETHEUS, OF_VICTORIA_METRICS = "/api/v1/otlp/v1/metrics", "/opentelemetry/v1/metrics"


@pytest.fixture(autouse=True)
def over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the stores' protocol."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")


def lacking(url: str) -> dict[str, str]:
    """Return the findings of a receiver that are not well."""
    return {finding.check: finding.severity for finding in check_receiver(url).findings if finding.severity != "ok"}


def test_own_configuration_lacks_nothing(tmp_path: Path) -> None:
    """Prometheus with our prometheus.yml."""
    with running_prometheus(tmp_path) as store:
        assert lacking(store.url + OF_PROMETHEUS) == {}


def test_bare_prometheus_lacks_settings(tmp_path: Path) -> None:
    """Prometheus without any, which keeps names as they are."""
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text("otlp: {translation_strategy: NoTranslation}\n")
    with running_prometheus(tmp_path, configuration) as store:
        findings = lacking(store.url + OF_PROMETHEUS)
    expected = ("names", "labels", "repetition", "older points")
    assert findings == dict.fromkeys(expected, "warning")


def test_bare_victoria_metrics_lacks_settings(tmp_path: Path) -> None:
    """VictoriaMetrics without any flag."""
    with running_victoria_metrics(tmp_path) as store:
        findings = lacking(store.url + OF_VICTORIA_METRICS)
    assert findings == {"names": "warning", "labels": "warning", "repetition": "warning", "NaN": "note"}
