"""The OTLP/gRPC receiver: acknowledges a request when the inbox has it."""

from __future__ import annotations

import hmac
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    DESCRIPTOR,
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_train.bridge.decode import decode
from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox import Inbox

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 16 * 2**20
"""Of a request, as sent and as decompressed; a collector's default batch of 8192 points is about 2 MiB."""
WORKERS = 4
"""SQLite takes one transaction at a time: the others decode meanwhile."""
MAX_CONCURRENT = 64
_SERVICE = DESCRIPTOR.services_by_name["MetricsService"].full_name


class MetricsReceiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """The OTLP metrics service over an inbox.

    Args:
        inbox: Where the points go.
        now_ns: The clock for their arrival.
    """

    def __init__(self, inbox: Inbox, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._inbox = inbox
        self._now_ns = now_ns
        self._failing = False

    def Export(  # noqa: N802  # the name is the protocol's
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        """Keep a request's points durably, then acknowledge."""
        decoded = decode(request)
        try:
            self._inbox.add(decoded.points, self._now_ns())
            self._failing = False
        except sqlite3.Error as error:
            if not self._failing:
                _log.warning("the inbox refuses points, senders are asked to try again: %s", error)
            self._failing = True
            # UNAVAILABLE is what OTLP senders retry without more ado; RESOURCE_EXHAUSTED needs a RetryInfo.
            context.abort(grpc.StatusCode.UNAVAILABLE, "the inbox can't be written; try again")
        if not decoded.rejected:
            return ExportMetricsServiceResponse()
        return ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(
                rejected_data_points=decoded.rejected, error_message=decoded.reason
            )
        )


class _TokenCheck(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Lets in who has the token; health checks need none."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(self._refuse)

    @staticmethod
    def _refuse(_request: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the authorization header must be 'Bearer' and the token")

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if details.method.startswith(f"/{_SERVICE}/") and not hmac.compare_digest(given.encode(), self._expected):
            return self._refusal
        return continuation(details)


class Server:
    """A gRPC server with the metrics service and the standard health service.

    Args:
        inbox: Where the points go.
        listen: "host:port"; port 0 takes a free one.
        token: What senders must give in `authorization: Bearer TOKEN`; empty for no check.
        tls: Private key and certificate chain, PEM; None for plain text.

    Raises:
        BridgeError: The address can't be bound.
    """

    def __init__(self, inbox: Inbox, listen: str, *, token: str = "", tls: tuple[bytes, bytes] | None = None) -> None:
        self._server = grpc.server(
            futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="otel_train-bridge-grpc"),
            interceptors=[_TokenCheck(token)] if token else [],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # else a second bridge on this port takes half of the requests
            ],
            maximum_concurrent_rpcs=MAX_CONCURRENT,
        )
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            MetricsReceiver(inbox), self._server
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            if tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, grpc.ssl_server_credentials([tls]))
        except RuntimeError as error:
            raise BridgeError(f"can't listen on {listen}: {error}; give another address or stop who has it") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        """Where it listens, with the port that it got."""

    def start(self) -> None:
        """Start serving, and say so to health checks."""
        self._server.start()
        for service in ("", _SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, timeout: float) -> None:
        """Refuse new requests and let those that run end, for at most `timeout` seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(timeout).wait(timeout + 1)
