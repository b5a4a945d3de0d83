"""Make the requests of a receiver's check: points as a sidecar makes them, of a run that no job has."""

from __future__ import annotations

import math
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from otel_train.catalogue import Instrument, Metric, rows
from otel_train.ring import Identity, Schema
from otel_train.sidecar.point_templates import Series
from otel_train.sidecar.points import Origin, PointBuilder

SERVICE = "otel_train doctor"
"""Name of the service, whatever the environment says: nobody's job has it."""
AGES = (60, 3600, 23 * 3600)
"""Seconds by which a point is older than the newest, one after the other."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """A run of a few points, which the bridge and the dashboards leave out: it has no step and no cluster's values.

    Examples:
        >>> from otel_train.probe.probe_run import ProbeRun
        >>> run = ProbeRun(begin_ms=1_796_000_000_000)
        >>> run.step_times
        (1796000000000, 1796000001000)

    Args:
        begin_ms: Time of its first points, milliseconds since the epoch.
        run_id: Its name, another one each time.
    """

    begin_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000 - 10_000)
    run_id: str = field(default_factory=lambda: f"doctor-{uuid.uuid4().hex[:8]}")

    @property
    def step_times(self) -> tuple[int, int]:
        """Times of the two points of each series, milliseconds since the epoch: a step, and the next one."""
        return self.begin_ms, self.begin_ms + 1000

    @property
    def compressed_time(self) -> int:
        """Time of the point that is sent compressed, milliseconds since the epoch."""
        return self.begin_ms + 2000

    @property
    def special_times(self) -> dict[str, int]:
        """Times of the numbers that are not finite, milliseconds since the epoch, by their names."""
        return {"NaN": self.begin_ms + 3000, "Infinity": self.begin_ms + 4000}

    @property
    def older_times(self) -> dict[int, int]:
        """Times of the points that come after newer ones, milliseconds since the epoch, by their age in seconds."""
        return {age: self.begin_ms - 1000 * age for age in AGES}

    def steps(self) -> bytes:
        """Return the request that has two points of each series."""
        first, second = self.step_times
        return self._request(
            {
                rows.PROBE_VALUE: {first: 0.1, second: 1.1},
                rows.PROBE_POINTS: {first: 1, second: 2},
                rows.PROBE_SPREAD: {first: (1, 0, 0, 1.0), second: (1, 1, 0, 6.0)},
            }
        )

    def value(self, time_ms: int, number: float = 1.5) -> bytes:
        """Return the request of one more number."""
        return self._request({rows.PROBE_VALUE: {time_ms: number}})

    def special_values(self) -> bytes:
        """Return the request of the numbers that are not finite."""
        times = self.special_times
        return self._request({rows.PROBE_VALUE: {times["NaN"]: math.nan, times["Infinity"]: math.inf}})

    def _request(self, points: Mapping[Metric, Mapping[int, float | tuple[float, ...]]]) -> bytes:
        identity = Identity(
            run_id=self.run_id,
            attempt=self.begin_ms,
            host=socket.gethostname(),
            service_name=SERVICE,
            attributes={"service.name": SERVICE},
        )
        origin = Origin(identity, Schema(()).layout())
        builder = PointBuilder(origin)
        for row, values in points.items():
            series = Series(
                row.name, row, row.instrument, self.begin_ms * 10**6, integer=row.instrument is Instrument.COUNTER
            )
            origin.metrics[series.key] = series.metric
            for time_ms, value in values.items():
                builder.add(series.key, series.pack(time_ms * 10**6, value))
        (part,) = builder.parts(_MOST_BYTES)
        return part.body
