"""The metrics of other programs that our dashboards and alert rules use: facts only, as Prometheus stores them.

Read from a running OpenTelemetry Collector 0.161 with the configurations in collector/: a `pull` reader that keeps
units and types in the names gives those that Prometheus makes of the same metrics when they come over OTLP. A counter
of failures has no series before the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExternalMetric:
    """A metric that another program gives."""

    name: str
    """Name in Prometheus."""
    description: str
    """Meaning, one sentence."""
    remedy: str = ""
    """Advice for when it is not as it should be: one imperative sentence."""


EXPORTER_LABEL = "exporter"
"""The label that names the collector's exporter."""
ERROR_LABEL = "error_type"
"""The label with the reason why an exporter gave up, at the telemetry level `detailed`."""
REASON_LABEL = "reason"
"""The label with the kind of a refusal, by the collector's own exporter to Prometheus."""
SERVICE_LABEL = "service_name"
"""The label that names who sent the refused point."""
REPETITION = "repetition"
"""The reason of points that Prometheus has already: they came again after an acknowledgement was lost."""

QUEUE_SIZE = ExternalMetric(
    "otelcol_exporter_queue_size",
    "Size of an exporter's queue on the collector's disk, in the unit of its capacity.",
    "Bring the exporter's receiver back: nothing is lost until the queue is full.",
)
QUEUE_CAPACITY = ExternalMetric("otelcol_exporter_queue_capacity", "Capacity of an exporter's queue.")
SENT = ExternalMetric("otelcol_exporter_sent_metric_points_total", "Data points that an exporter's receiver has taken.")
SEND_FAILED = ExternalMetric(
    "otelcol_exporter_send_failed_metric_points_total",
    "Data points that an exporter gave up on: its receiver refused them for good, so that a retry is useless.",
    "Look at the collector's log for the receiver's answer and fix what it names: these points are lost.",
)
REFUSED_ALONE = ExternalMetric(
    "otelcol_exporter_refused_metric_points_total",
    "Data points that the collector gave up because Prometheus refuses them, even alone; all others arrive.",
    "Look up the sender, the metric and Prometheus' own text in the collector's log, and mend the sender.",
)
REFUSED = ExternalMetric(
    "otelcol_receiver_refused_metric_points_total",
    "Data points that the collector did not take: it is short of memory, or a queue is full. Senders try again.",
    "Give the collector more memory, or bring the receiver back whose queue is full.",
)
UPTIME = ExternalMetric("otelcol_process_uptime_seconds_total", "Seconds since the collector began.")

LOSS = ExternalMetric(
    "train_cluster_loss",
    "The loss that the job logs as train/loss: of each source where it is declared by source, and of all rows.",
    "Look at the data of a source whose loss rises while the others fall, and at its weight.",
)
