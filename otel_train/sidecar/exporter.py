"""Send batches over OTLP/gRPC with the SDK's exporter, and say once when the receiver goes away or comes back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics

logger = logging.getLogger(__name__)


class Exporter:
    """The SDK's exporter, which reads the standard `OTEL_EXPORTER_OTLP_*` variables.

    Its own log lines come with each failed request; ours come with each change.
    """

    def __init__(self) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPMetricExporter()
        self._failing = False

    def send(self, metrics: Sequence[ResourceMetrics]) -> bool:
        """Send, and tell whether the receiver has acknowledged."""
        sent = self._exporter.export(MetricsData(resource_metrics=metrics)) is MetricExportResult.SUCCESS
        if sent is self._failing:
            self._failing = not sent
            if sent:
                logger.info("the receiver acknowledges again")
            else:
                logger.warning("the receiver does not acknowledge; the rings keep what was recorded")
        return sent

    def close(self) -> None:
        """Close the connection; a request under way is given up."""
        self._exporter.shutdown(timeout_millis=1000)
