"""An OTLP receiver over gRPC and HTTP that keeps the values it is sent, or refuses them with a time to wait."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_train.bridge.decode import data_points


@dataclass(frozen=True)
class Refusal:
    """How requests are refused."""

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


class Endpoint(metrics_service_pb2_grpc.MetricsServiceServicer):
    """What the receiver has; its ports are set once it runs."""

    def __init__(self) -> None:
        self.grpc_port = self.http_port = 0
        self.refusal: Refusal | None = None
        self.refused = 0
        self._values: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def values(self, run_id: str, rank: int, metric: str) -> list[float]:
        """Return the values of a rank's metric in the order of their coming."""
        with self._lock:
            return list(self._values[run_id, rank, metric])

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Keep the numbers of a request."""
        with self._lock:
            for resource in request.resource_metrics:
                about = {each.key: each.value for each in resource.resource.attributes}
                if "train.run.id" not in about:
                    continue
                run_id, rank = about["train.run.id"].string_value, about["train.rank"].int_value
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._values[run_id, rank, metric.name] += map(_number, data_points(metric))

    def Export(  # noqa: N802  # the name is the protocol's
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        if self.refusal is not None:
            self.refused += 1
            self.refusal.abort(context)
        self.take(request)
        return ExportMetricsServiceResponse()


def _number(point: Any) -> float:
    kind = point.WhichOneof("value") if hasattr(point, "as_double") else None
    return float(getattr(point, kind)) if kind else 0.0


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name is the library's
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if endpoint.refusal is not None:
                endpoint.refused += 1
                self.send_response(endpoint.refusal.status)
                self.send_header("Retry-After", str(endpoint.refusal.delay))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            endpoint.take(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """Run an endpoint on two free ports of the loopback."""
    endpoint = Endpoint()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(endpoint, server)  # type: ignore[no-untyped-call]
    endpoint.grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint)) as http:
        endpoint.http_port = http.server_port
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield endpoint
        finally:
            http.shutdown()
            server.stop(1.0).wait()
