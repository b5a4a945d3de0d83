"""Send batches over OTLP with the SDK's exporter, and tell whether they were acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics

from otel_train.announcing import AnnouncingExporter

logger = logging.getLogger(__name__)


class Exporter:
    """The sidecar's end of the connection; the standard `OTEL_EXPORTER_OTLP_*` variables say where to and how."""

    def __init__(self) -> None:
        self._exporter = AnnouncingExporter(
            logger,
            lost="the receiver does not acknowledge; the rings keep what was recorded",
            back="the receiver acknowledges again",
        )

    def send(self, metrics: Sequence[ResourceMetrics]) -> bool:
        """Send, and tell whether the receiver has acknowledged."""
        try:
            result = self._exporter.export(MetricsData(resource_metrics=metrics))
        except Exception:  # noqa: BLE001  # what can't be encoded: over HTTP the SDK makes a failed export of it
            return False
        return result is MetricExportResult.SUCCESS

    def close(self) -> None:
        """Close the connection; a request under way is given up."""
        self._exporter.shutdown(timeout_millis=1000)


def encode(metrics: Sequence[ResourceMetrics]) -> bytes:
    """Return a request's bytes; raises whatever the SDK does where a value has no place in the protocol's types."""
    return encode_metrics(MetricsData(resource_metrics=metrics)).SerializeToString()
