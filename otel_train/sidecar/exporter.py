"""Send batches over OTLP with the SDK's exporter, and tell whether they were acknowledged."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics

from otel_train.announcing import AnnouncingExporter

logger = logging.getLogger(__name__)


SEND_SECONDS = 60.0
"""Of one request with its tries. The SDK bounds them by OTEL_EXPORTER_OTLP_TIMEOUT, but not where an HTTP receiver
sends its answer byte by byte, nor over gRPC where the wall clock is set back."""


class Exporter:
    """The sidecar's end of the connection; the standard `OTEL_EXPORTER_OTLP_*` variables say where to and how."""

    def __init__(self) -> None:
        self._exporter = self._connect()

    @staticmethod
    def _connect() -> AnnouncingExporter:
        return AnnouncingExporter(
            logger,
            lost="the receiver does not acknowledge; the rings keep what was recorded",
            back="the receiver acknowledges again",
        )

    def send(self, metrics: Sequence[ResourceMetrics]) -> bool:
        """Send, and tell whether the receiver has acknowledged, within `SEND_SECONDS`."""
        results: list[MetricExportResult] = []

        def export() -> None:
            # What can't be encoded raises over gRPC; over HTTP the SDK makes a failed export of it.
            with contextlib.suppress(Exception):
                results.append(self._exporter.export(MetricsData(resource_metrics=metrics)))

        sending = threading.Thread(target=export, name="otel_train-sidecar-send", daemon=True)
        sending.start()
        sending.join(SEND_SECONDS)
        if sending.is_alive():
            logger.warning("the receiver has not ended its answer in %.0f s; the connection is given up", SEND_SECONDS)
            self._exporter = self._connect()
        return results == [MetricExportResult.SUCCESS]

    def close(self) -> None:
        """Close the connection; a request under way is given up."""
        self._exporter.shutdown(timeout_millis=1000)


def encode(metrics: Sequence[ResourceMetrics]) -> bytes:
    """Return a request's bytes; raises whatever the SDK does where a value has no place in the protocol's types."""
    return encode_metrics(MetricsData(resource_metrics=metrics)).SerializeToString()
