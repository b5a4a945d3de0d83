"""Send batches over OTLP with the SDK's exporter, and tell whether they were acknowledged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from otel_train.announcing import AnnouncingExporter
from otel_train.protocol import HTTP, otlp_protocol
from otel_train.sidecar.points import PointBuilder

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
            exporter=_encoded_exporter(),
        )

    def send(self, metrics: Sequence[PointBuilder]) -> bool:
        """Send one request, and tell whether the receiver has acknowledged, within `SEND_SECONDS`."""
        results: list[MetricExportResult] = []
        request: Any = ExportMetricsServiceRequest()
        for each in metrics:
            each.write(request.resource_metrics.add())
        sending = threading.Thread(
            target=lambda: results.append(self._exporter.export(request)), name="otel_train-sidecar-send", daemon=True
        )
        sending.start()
        sending.join(SEND_SECONDS)
        if sending.is_alive():
            logger.warning("the receiver has not ended its answer in %.0f s; the connection is given up", SEND_SECONDS)
            self._exporter = self._connect()
        return results == [MetricExportResult.SUCCESS]

    def close(self) -> None:
        """Close the connection; a request under way is given up."""
        self._exporter.shutdown(timeout_millis=1000)


def _encoded_exporter() -> MetricExporter:
    """Return the SDK's exporter for the protocol, but one that takes a request of OTLP's own messages.

    All that it has over the SDK's is to leave out the encoding. The other protocol's libraries are not loaded.
    """
    if otlp_protocol() == HTTP:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as HttpExporter,
        )

        class EncodedHttpExporter(HttpExporter):
            def export(self, metrics_data: Any, timeout_millis: float | None = 10_000, **_: Any) -> MetricExportResult:
                del timeout_millis  # the SDK's own goes by OTEL_EXPORTER_OTLP_TIMEOUT too
                return self._export_batch(metrics_data)

        return EncodedHttpExporter()
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter as GrpcExporter,
    )

    class EncodedGrpcExporter(GrpcExporter):
        def _translate_data(self, data: Any) -> Any:
            return data

        def _count_data(self, data: Any) -> int:  # for the SDK's own metrics, which are off
            return len(data.resource_metrics)

    return EncodedGrpcExporter()
