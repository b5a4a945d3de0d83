"""The SDK's OTLP exporter, which says once when its receiver goes away or comes back, not at each failed request."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from otel_train.endpoint import Endpoint
from otel_train.exporters import grpc_arguments, http_arguments
from otel_train.protocol import HTTP


class AnnouncingExporter(MetricExporter):
    """Reads the standard `OTEL_EXPORTER_OTLP_*` variables, as the SDK's own does, and silences the SDK's log.

    Args:
        logger: Where it is said.
        lost: The warning when a request fails and the one before did not.
        back: What is said when a request succeeds and the one before did not.
        exporter: The SDK's exporter; by default the one for the protocol that the environment names.

    Raises:
        ConfigurationError: A variable of the environment does not hold what it must.
    """

    def __init__(self, logger: logging.Logger, *, lost: str, back: str, exporter: MetricExporter | None = None) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = exporter or _exporter()
        # A periodic reader asks an exporter for these two.
        super().__init__(self._exporter._preferred_temporality, self._exporter._preferred_aggregation)  # noqa: SLF001
        self._said_to, self._lost, self._back = logger, lost, back
        self._failing = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> MetricExportResult:
        """Send a batch and tell what came of it."""
        result = self._exporter.export(metrics_data, timeout_millis, **options)
        failed = result is not MetricExportResult.SUCCESS
        if failed is not self._failing:
            self._failing = failed
            if failed:
                self._said_to.warning(self._lost)
            else:
                self._said_to.info(self._back)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        """Close the connection; a request under way is given up."""
        self._exporter.shutdown(timeout_millis, **options)


def _exporter() -> MetricExporter:
    """Return the SDK's exporter for the endpoint; the other protocol's libraries are not loaded."""
    endpoint = Endpoint.read()
    if endpoint.protocol == HTTP:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as HttpExporter,
        )

        return HttpExporter(**http_arguments(endpoint))
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter as GrpcExporter,
    )

    return GrpcExporter(**grpc_arguments(endpoint))
