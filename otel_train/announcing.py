"""The SDK's OTLP exporter, which says once when its receiver goes away or comes back, not at each failed request."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData


class AnnouncingExporter(OTLPMetricExporter):
    """Reads the standard `OTEL_EXPORTER_OTLP_*` variables, as the SDK's own does, and silences the SDK's log.

    Args:
        logger: Where it is said.
        lost: The warning when a request fails and the one before did not.
        back: What is said when a request succeeds and the one before did not.
    """

    def __init__(self, logger: logging.Logger, *, lost: str, back: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        super().__init__()
        self._said_to, self._lost, self._back = logger, lost, back
        self._failing = False

    def export(self, metrics_data: MetricsData, *arguments: Any, **options: Any) -> MetricExportResult:
        """Send a batch and tell what came of it."""
        result = super().export(metrics_data, *arguments, **options)
        failed = result is not MetricExportResult.SUCCESS
        if failed is not self._failing:
            self._failing = failed
            if failed:
                self._said_to.warning(self._lost)
            else:
                self._said_to.info(self._back)
        return result
