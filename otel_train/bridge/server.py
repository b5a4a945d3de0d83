"""The receiver of OTLP: over gRPC here, over HTTP beside it; it acknowledges a request when the inbox has it."""

from __future__ import annotations

import asyncio
import hmac
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    DESCRIPTOR,
    ExportMetricsServiceResponse,
)

from otel_train.bridge.addresses import ADVICE, check_free, open_sockets
from otel_train.bridge.errors import BridgeError, BusyError, InvalidRequestError
from otel_train.bridge.http_port import HttpPort
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.intake import MAX_MESSAGE_BYTES, RETRY_SECONDS, Intake
from otel_train.bridge.otlp_http import OtlpHttp
from otel_train.bridge.request_store import RequestStore
from otel_train.otlp.receiver_clock import DATE

MAX_STREAMS = 32
"""Concurrent requests over one connection; HTTP/2 lets further ones wait at their sender."""
HANDSHAKE_MS = 10_000
SERVICE = DESCRIPTOR.services_by_name["MetricsService"].full_name


class MetricsReceiver:
    """The OTLP metrics service over gRPC.

    Requests come as bytes, which the store parses one at a time: the memory of a request is bounded.

    Args:
        intake: Takes the requests.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    @property
    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handler of the service for a server."""
        export = grpc.unary_unary_rpc_method_handler(
            self._export, response_serializer=ExportMetricsServiceResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Export": export})

    async def _export(self, request: bytes, context: Any) -> ExportMetricsServiceResponse:
        """Store a request's points durably, then acknowledge."""
        try:
            answer = await self._intake.take(request)
            # Whoever sends learns by it that its clock, and so its points' times, are wrong; gRPC itself has no date.
            await context.send_initial_metadata(((DATE, formatdate(usegmt=True)),))
            return answer
        except BusyError as error:
            await self._refuse(context, str(error))
        except InvalidRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("a refusal raises")

    @staticmethod
    async def _refuse(context: Any, why: str) -> None:
        """End the call as OTLP's specification says for an overloaded server: UNAVAILABLE with RetryInfo."""
        retry = RetryInfo()
        retry.retry_delay.FromSeconds(RETRY_SECONDS)
        detail = AnyMessage()
        detail.Pack(retry)
        status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=why, details=[detail])
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                ("google.rpc.retryinfo-bin", retry.SerializeToString()),  # where the Python SDK's exporter looks
            )
        )
        await context.abort(grpc.StatusCode.UNAVAILABLE, why)


class _TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses requests without the token; health checks do not need it."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(self._refuse)

    @staticmethod
    async def _refuse(_request: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the authorization header must be 'Bearer' and the token")

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        given = str(dict(details.invocation_metadata).get("authorization", ""))
        if details.method.startswith(f"/{SERVICE}/") and not hmac.compare_digest(given.encode(), self._expected):
            return self._refusal
        return await continuation(details)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of TLS, read."""

    key: bytes
    """Private key, PEM."""
    certificates: bytes
    """Certificate chain, PEM."""
    context: ssl.SSLContext
    """The same for the HTTP port."""


class Server:
    """The metrics service over gRPC, with the standard health service, and over HTTP.

    They run on an event loop of their own: a request that is being sent slowly must not keep a thread from the others.

    Args:
        inbox: The destination of the points.
        listen: "host:port" for gRPC; port 0 takes a free one.
        http_listen: The same for HTTP; empty for none.
        token: The token that senders must give in `authorization: Bearer TOKEN`; empty for no check.
        tls: What TLS needs; None for plain text.

    Raises:
        BridgeError: An address can't be bound.
    """

    def __init__(
        self, inbox: Inbox, listen: str, *, http_listen: str = "", token: str = "", tls: Tls | None = None
    ) -> None:
        check_free(listen)
        sockets = open_sockets(http_listen) if http_listen else []
        self._store = RequestStore(inbox)
        self.counts = self._store.counts
        intake = Intake(self._store)
        self._receiver, self._over_http = MetricsReceiver(intake), OtlpHttp(intake, token)
        self._http = HttpPort(sockets, self._over_http.respond, None if tls is None else tls.context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="otel_train-bridge-ports", daemon=True)
        self._thread.start()
        try:
            port = self._await(self._bind(listen, token, tls))
        except RuntimeError as error:
            for bound in sockets:
                bound.close()
            self._end()
            raise BridgeError(f"can't listen on {listen}: {error}; {ADVICE}") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        """Address that gRPC listens on, with the port that it got."""
        self.http_address = f"{http_listen.rpartition(':')[0]}:{sockets[0].getsockname()[1]}" if sockets else ""
        """The same of HTTP; empty where it does not listen."""

    async def _bind(self, listen: str, token: str, tls: Tls | None) -> int:
        self._server = grpc.aio.server(
            interceptors=[_TokenCheck(token)] if token else [],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.so_reuseport", 0),  # else a second bridge on this port takes half of the requests
            ],
        )
        self._server.add_generic_rpc_handlers((self._receiver.handler,))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if tls is None:
            return self._server.add_insecure_port(listen)
        return self._server.add_secure_port(listen, grpc.ssl_server_credentials([(tls.key, tls.certificates)]))

    def start(self) -> None:
        """Start serving, and report it to health checks."""
        self._await(self._start())

    async def _start(self) -> None:
        await self._server.start()
        await self._http.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, timeout: float) -> None:
        """Refuse new requests and let those that run end, for at most `timeout` seconds; a second call does nothing."""
        if not self._loop.is_closed():
            self._await(self._stop(timeout))
            self._store.close()
            self._end()

    async def _stop(self, grace: float) -> None:
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._server.stop(grace), self._http.stop(grace))

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._over_http.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
