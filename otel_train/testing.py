"""Receive OTLP in tests of jobs that use otel_train. Needs the extra `bridge`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

__all__ = ["OtlpReceiver", "ReceivedPoint"]


@dataclass(frozen=True, slots=True)
class ReceivedPoint:
    """One number, as it came over the wire.

    Examples:
        >>> from otel_train.testing import ReceivedPoint
        >>> point = ReceivedPoint("run/0/0", "train/loss", time_ns=0, value=0.5, cumulative=False)
        >>> point.name, point.value
        ('train/loss', 0.5)
    """

    instance: str
    """`service.instance.id` of the resource: run id, attempt and rank, joined by slashes."""
    name: str
    time_ns: int
    value: float
    cumulative: bool
    """Whether it is a point of a cumulative sum."""
    attributes: tuple[tuple[str, str], ...] = ()


class OtlpReceiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """A real OTLP/gRPC metrics receiver on a free port of this machine.

    Examples:
        >>> import os, otel_train
        >>> from otel_train.testing import OtlpReceiver
        >>> with OtlpReceiver() as receiver:
        ...     os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{receiver.address}"
        ...     with otel_train.init(close_timeout=30) as telemetry:
        ...         for step in (1, 2):
        ...             _ = telemetry.step(step, {"train/loss": 1 / step})
        ...     losses = receiver.values("train/cluster/loss")
        >>> losses
        [1.0, 0.5]

    Args:
        address: The address to listen on; port 0 takes a free one.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port(address)
        self.address = f"{address.rpartition(':')[0]}:{port}"
        self.refuse_with: grpc.StatusCode | None = None
        """Status with which requests are answered while it is set; nothing is kept."""
        self.refused = 0
        self._points: list[ReceivedPoint] = []
        self._lock = threading.Lock()

    def Export(  # noqa: N802  # the name is the protocol's
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        """Keep a request's numbers, or refuse it."""
        if self.refuse_with is not None:
            self.refused += 1
            context.abort(self.refuse_with, "refused for a test")
        self.take(request)
        return ExportMetricsServiceResponse()

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Keep a request's numbers, however it has arrived."""
        received = []
        for resource in request.resource_metrics:
            identity = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            instance = identity.get("service.instance.id", "")
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                cumulative = metric.WhichOneof("data") == "sum"
                for point in (metric.sum if cumulative else metric.gauge).data_points:
                    value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                    attributes = tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes))
                    received.append(
                        ReceivedPoint(instance, metric.name, point.time_unix_nano, value, cumulative, attributes)
                    )
        with self._lock:
            self._points += received

    @property
    def points(self) -> list[ReceivedPoint]:
        """All numbers so far, in the order in which they came."""
        with self._lock:
            return list(self._points)

    def values(self, name: str) -> list[float]:
        """Return the values of one metric in the order in which they came."""
        return [point.value for point in self.points if point.name == name]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop(None).wait()
