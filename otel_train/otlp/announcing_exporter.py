"""Export from the SDK's readers over OTLP, and log once when the receiver goes away, why, and when it comes back."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from otel_train.log_once import OnceLogger, OutageLogger
from otel_train.otlp.exporter import Exporter

SAY_AGAIN = 600.0
"""Seconds without a cause after which it is logged once more."""


class AnnouncingExporter(MetricExporter):
    """Reads the standard `OTEL_EXPORTER_OTLP_*` variables; values are cumulative.

    Args:
        logger: The logger of both messages.
        lost: The warning when a request fails and the one before did not; the receiver's answer follows it.
        partly: The warning when some points of a request that was taken are rejected; once for each text.
        back: The message when a request succeeds and the one before did not.

    Raises:
        ConfigurationError: A variable of the environment does not hold what it must.
    """

    def __init__(self, logger: logging.Logger, *, lost: str, partly: str, back: str) -> None:
        super().__init__()
        self._exporter = Exporter()
        self._outages = OutageLogger(logger)
        self._warnings = OnceLogger(logger, again_after=SAY_AGAIN)
        self._lost, self._partly, self._back = lost, partly, back

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Send a batch, once, and tell whether it was taken: the next one has newer totals."""
        del timeout_millis  # the endpoint's variable says how long a request may take
        answer = self._exporter.send(encode_metrics(metrics_data).SerializeToString())
        if answer.taken:
            self._outages.worked(self._back)
            if answer.text or answer.rejected:
                message = "%s: %s answers %s: %d points, %s"
                self._warnings.warn(
                    f"{answer.cause} {answer.topic}",
                    message,
                    self._partly if answer.rejected else "a warning",
                    self._exporter.endpoint,
                    answer.cause,
                    answer.rejected,
                    answer.text,
                )
            return MetricExportResult.SUCCESS
        address = self._exporter.endpoint
        self._outages.failed("%s: %s answers %s: %s. %s", self._lost, address, answer.cause, answer.text, answer.advice)
        return MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: nothing is kept here."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Close the connection."""
        del timeout_millis
        self._exporter.close()
