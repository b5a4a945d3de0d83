"""A sender of OTLP requests, as the sidecar and a collector make them, and bridges to send them to."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps
from otel_train.catalogue import cluster_name, rows

SECOND = 10**9
BASE_NS = 1_790_000_000 * SECOND


class Requests:
    """Builds one step's request; names are a rank's and become cluster-wide here."""

    @staticmethod
    def step(
        step: int,
        gauges: Mapping[str, float] | None = None,
        counters: Mapping[str, float] | None = None,
        *,
        run_id: str = "run",
        attempt: int = 1,
        rank: int = 0,
        histogram: str = "",
        counted: bool = True,
        number: int = 0,
    ) -> ExportMetricsServiceRequest:
        """Return the request of one step; a key "name|modality" has that modality, `number` is its record's."""
        request = ExportMetricsServiceRequest()
        resource_metrics = request.resource_metrics.add()
        for key, whole in (("train.attempt", attempt), ("train.rank", rank)):
            resource_metrics.resource.attributes.add(key=key).value.int_value = whole
        resource_metrics.resource.attributes.add(key="train.run.id").value.string_value = run_id
        metrics = resource_metrics.scope_metrics.add().metrics
        time_ns = BASE_NS + step * SECOND

        def fill(metric: Metric, key: str, value: float) -> None:
            point = getattr(metric, metric.WhichOneof("data") or "gauge").data_points.add(time_unix_nano=time_ns)
            if "|" in key:
                point.attributes.add(key="modality").value.string_value = key.partition("|")[2]
            if isinstance(value, int):
                point.as_int = value
            else:
                point.as_double = value

        fill(metrics.add(name=rows.STEP.name), "", step)
        for key, value in (gauges or {}).items():
            fill(metrics.add(name=cluster_name(key.partition("|")[0])), key, value)
        for key, value in (counters or {}).items():
            metric = metrics.add(name=cluster_name(key.partition("|")[0]))
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            fill(metric, key, value)
        if histogram:
            metrics.add(name=cluster_name(histogram)).histogram.data_points.add(time_unix_nano=time_ns, count=3)
        if number:
            fill(metrics.add(name=cluster_name(rows.STEP_ORDINAL.name)), "", number)
        if counted:
            fill(metrics.add(name=cluster_name(rows.STEP_POINTS.name)), "", len(metrics))
            metrics[-1].gauge.data_points[0].as_int = len(metrics) - 1  # all but train.step
        return request

    @staticmethod
    def parts(request: ExportMetricsServiceRequest) -> list[ExportMetricsServiceRequest]:
        """Return the request split into one for each metric, as a collector may."""
        parts = []
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            part = copy.deepcopy(request)
            del part.resource_metrics[0].scope_metrics[0].metrics[:]
            part.resource_metrics[0].scope_metrics[0].metrics.append(metric)
            parts.append(part)
        return parts


class Running:
    """A bridge that runs in this process, and a channel to it."""

    def __init__(self, config: BridgeConfig) -> None:
        self.state = config.state
        self.bridge = Bridge(config)
        self.bridge.__enter__()
        self.channel = grpc.insecure_channel(self.bridge.address, compression=grpc.Compression.Gzip)

    def send(self, *requests: ExportMetricsServiceRequest, **call: Any) -> ExportMetricsServiceResponse:
        """Send requests one after the other and return the last answer."""
        stub = MetricsServiceStub(self.channel)  # type: ignore[no-untyped-call]
        answers = [stub.Export(request, timeout=30, **call) for request in requests]
        answer: ExportMetricsServiceResponse = answers[-1]
        return answer

    def wait(self, count: int, run_id: str = "run") -> None:
        """Wait until that many rows of the run are in wandb."""
        deadline = time.monotonic() + 30
        while delivered_steps(self.state, run_id) < count:
            assert time.monotonic() < deadline, f"{delivered_steps(self.state, run_id)} of {count} rows in 30 s"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it gracefully."""
        self.channel.close()
        assert self.bridge.stop()


@pytest.fixture
def requests() -> Requests:
    """Give the builder of requests."""
    return Requests()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a bridge on this test's state directory; each is stopped at the end."""
    started = []

    def start(**options: Any) -> Running:
        running = Running(BridgeConfig(state=tmp_path / "state", listen="127.0.0.1:0", linger=0, **options))
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
