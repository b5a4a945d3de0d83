"""Export the metrics of the bridge itself over OTLP: rows, the backlog and its age, what was refused."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from otel_train.bridge.inbox import Inbox
from otel_train.bridge.request_store import Counts
from otel_train.bridge.row_writer import Writer
from otel_train.catalogue import Instrument, Metric, rows
from otel_train.otlp.announcing_exporter import AnnouncingExporter

logger = logging.getLogger(__name__)

SERVICE_NAME = "otel_train-bridge"
_INTERVAL = 10.0
_STOP = 0.5
"""Seconds that a stopping bridge waits for its last values to be sent."""
Observe = Callable[[], float]


def enabled() -> bool:
    """Tell whether the environment names a receiver of metrics, and does not forbid to send them."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


@contextmanager
def exporting(inbox: Inbox, writer: Writer, counts: Counts) -> Iterator[None]:
    """Export the bridge's own metrics while the block runs, where `OTEL_EXPORTER_OTLP_ENDPOINT` names a receiver.

    The interval is `OTEL_METRIC_EXPORT_INTERVAL`, 10 s by default. A failure of it does not affect the bridge.
    """
    if not enabled():
        yield
        return
    interval = None if "OTEL_METRIC_EXPORT_INTERVAL" in os.environ else _INTERVAL * 1000
    given = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, then OTEL_RESOURCE_ATTRIBUTES
    # The counters begin again with each start of the bridge, and so must their series.
    named = {"service.name": given.get("service.name") or SERVICE_NAME, "service.instance.id": str(uuid.uuid4())}
    resource = Resource.create(named)
    exporter = AnnouncingExporter(
        logger,
        lost="the bridge's own metrics are not taken by the receiver that OTEL_EXPORTER_OTLP_* name",
        partly="some of the bridge's own metrics are rejected",
        back="the bridge's own metrics are taken again",
    )
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=interval)],
        resource=resource,
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("otel_train")
    for metric, observe in _observations(inbox, writer, counts):
        create = (
            meter.create_observable_counter
            if metric.instrument is Instrument.COUNTER
            else meter.create_observable_gauge
        )
        create(metric.name, [_callback(observe)], unit=metric.unit, description=metric.description)
    try:
        yield
    finally:
        # A refused or hanging endpoint makes the SDK's shutdown take many seconds.
        stopping = threading.Thread(target=provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(_STOP)


def _observations(inbox: Inbox, writer: Writer, counts: Counts) -> Iterable[tuple[Metric, Observe]]:
    return (
        (rows.BRIDGE_ROWS, lambda: writer.rows),
        (rows.BRIDGE_PARTIAL_ROWS, lambda: writer.partial_rows),
        (rows.BRIDGE_WAITING, lambda: inbox.reader.backlog()[0]),
        (rows.BRIDGE_LAG, lambda: _age(inbox.reader.backlog()[1])),
        (rows.BRIDGE_INBOX_SIZE, inbox.size_on_disk),
        (rows.BRIDGE_DUPLICATES, lambda: counts.duplicates),
        (rows.BRIDGE_LATE_POINTS, lambda: counts.late + inbox.nameless_points),
        (rows.BRIDGE_REFUSED_POINTS, lambda: counts.refused_points),
        (rows.BRIDGE_REFUSED_REQUESTS, lambda: counts.refused_requests),
    )


def _age(since_ns: int | None) -> float:
    return 0.0 if since_ns is None else max(0.0, (time.time_ns() - since_ns) / 1e9)


def _callback(observe: Observe) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def call(_: CallbackOptions) -> Iterable[Observation]:
        try:
            return [Observation(observe())]
        except sqlite3.Error:  # a full disk, or a bridge that is just stopping: no value is better than a wrong one
            return []

    return call
