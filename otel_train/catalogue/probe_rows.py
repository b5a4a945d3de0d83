"""Metrics that `otel-train doctor --receiver` sends to see what becomes of them; no panel or alert asks for them."""

from __future__ import annotations

from otel_train.catalogue.metric import Instrument, Metric, Reduction

PROBE_VALUE = Metric(
    "telemetry.doctor.probe",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="Number that `otel-train doctor --receiver` sends under a run of its own, to see whether it arrives.",
)
PROBE_POINTS = Metric(
    "telemetry.doctor.points",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Counter that `otel-train doctor --receiver` sends beside the number, to see its name in the store.",
)
PROBE_SPREAD = Metric(
    "telemetry.doctor.spread",
    Reduction.LOCAL,
    Instrument.HISTOGRAM,
    "{point}",
    description="Histogram that `otel-train doctor --receiver` sends beside the number, to see its name in the store.",
    bounds=(1.0, 10.0),
)
PROBE: tuple[Metric, ...] = (PROBE_VALUE, PROBE_POINTS, PROBE_SPREAD)
"""Metrics of a receiver's check; none of them is reduced."""
