"""An OTLP receiver over gRPC and HTTP that keeps what it is sent, or refuses it with a time to wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_train.sidecar.points import LIVE_SUFFIX
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, http_server


@dataclass(frozen=True)
class Refusal:
    """Ways to refuse requests."""

    code: grpc.StatusCode
    status: int
    """HTTP's."""
    delay: int = 1
    """Seconds that the sender is asked to wait."""

    def abort(self, context: grpc.ServicerContext) -> None:
        """Refuse a gRPC request, with the delay where the specification has it and where the SDK looks for it."""
        info = RetryInfo(retry_delay=Duration(seconds=self.delay))
        detail = Detail()
        detail.Pack(info)
        status = Status(code=self.code.value[0], message="come again", details=[detail])
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                ("google.rpc.retryinfo-bin", info.SerializeToString()),
            )
        )
        context.abort(self.code, "come again")


class Endpoint(OtlpReceiver):
    """The receiver; the HTTP port is set once it runs.

    Args:
        address: The address of gRPC; port 0 takes a free one.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        super().__init__(address)
        self.http_port = 0
        self.refusal: Refusal | None = None

    @property
    def grpc_port(self) -> int:
        """The port of gRPC."""
        return int(self.address.rpartition(":")[2])

    def values_of(self, run_id: str, rank: int, metric: str) -> list[float]:
        """Return the values of a rank's metric, of all attempts, in the order in which they came."""
        return [
            point.value
            for point in self.points
            if point.name == metric
            and point.instance.removesuffix(LIVE_SUFFIX).rsplit("/", 2)[::2] == [run_id, str(rank)]
        ]

    def Export(  # noqa: N802  # the name is the protocol's
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        """Keep a request that came over gRPC, or refuse it."""
        if self.refusal is not None:
            self.refused += 1
            self.refusal.abort(context)
        return super().Export(request, context)

    def respond(self, body: bytes) -> Response:
        """Keep a request that came over HTTP, or refuse it."""
        if self.refusal is not None:
            self.refused += 1
            return Response(self.refusal.status, {"Retry-After": str(self.refusal.delay)})
        self.take(ExportMetricsServiceRequest.FromString(body))
        return Response(headers={"Content-Type": "application/x-protobuf"})


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """Run an endpoint on two free ports of the loopback."""
    with Endpoint() as endpoint, http_server(endpoint.respond) as server:
        endpoint.http_port = server.server_port
        yield endpoint
