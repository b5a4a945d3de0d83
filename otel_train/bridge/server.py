"""The OTLP/gRPC receiver: acknowledges a request when the inbox has it."""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import socket
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    DESCRIPTOR,
    ExportMetricsServiceResponse,
)

from otel_train.bridge.errors import BridgeError, InboxFullError
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.request_store import RequestStore
from otel_train.log_once import OnceLogger

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 * 2**20
"""Size of a request, as sent and as decompressed; a collector's batch of 8192 points, and a sidecar's request, are some
6 MiB. Empty parts take up to 65 times as much in memory as in a request."""
MAX_WAITING_BYTES = 16 * MAX_MESSAGE_BYTES
"""Size of all requests that wait for the inbox; further ones are refused as retryable."""
MAX_STREAMS = 32
"""Concurrent requests over one connection; HTTP/2 lets further ones wait at their sender."""
HANDSHAKE_MS = 10_000
RETRY_SECONDS = 5
_ADVICE = "give another address or stop the process that has it"
_SERVICE = DESCRIPTOR.services_by_name["MetricsService"].full_name


class MetricsReceiver:
    """The OTLP metrics service over a store of requests.

    Requests come as bytes, which the store parses one at a time: the memory of a request is bounded.

    Args:
        store: Stores the requests.
    """

    def __init__(self, store: RequestStore) -> None:
        self._store = store
        self._waiting_bytes = 0
        self._warnings = OnceLogger(logger)

    @property
    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handler of the service for a server."""
        export = grpc.unary_unary_rpc_method_handler(
            self._export, response_serializer=ExportMetricsServiceResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Export": export})

    async def _export(self, request: bytes, context: Any) -> ExportMetricsServiceResponse:
        """Store a request's points durably, then acknowledge."""
        if self._waiting_bytes + len(request) > MAX_WAITING_BYTES:
            await self._refuse(context, "too many requests at once; try again")
        self._waiting_bytes += len(request)
        try:
            return await asyncio.wrap_future(self._store.submit(request))
        except (sqlite3.Error, InboxFullError):
            await self._refuse(context, "the inbox can't be written; try again")
        except DecodeError as error:
            self._store.counts.refused_requests += 1
            message = "requests are refused, their sender is told: they are not OTLP metrics (%s)"
            self._warnings.warn(message, message, error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not an ExportMetricsServiceRequest")
        finally:
            self._waiting_bytes -= len(request)
        raise AssertionError("a refusal raises")

    async def _refuse(self, context: Any, why: str) -> None:
        """End the call as OTLP's specification says for an overloaded server: UNAVAILABLE with RetryInfo."""
        self._store.counts.refused_requests += 1
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
        if details.method.startswith(f"/{_SERVICE}/") and not hmac.compare_digest(given.encode(), self._expected):
            return self._refusal
        return await continuation(details)


def _check_free(listen: str) -> None:
    """Check that an address can be bound; where it can't, gRPC would first write lines of its own to standard error.

    Raises:
        BridgeError: It can't.
    """
    host, _, port = listen.rpartition(":")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing = [error for address in addresses if (error := _missing_address(*address)) is not None]
        if missing and len(missing) == len(addresses):
            raise missing[-1]
    except OSError as error:
        raise BridgeError(f"can't listen on {listen}: {error.strerror}; {_ADVICE}") from error


def _missing_address(family: int, kind: int, protocol: int, _: str, address: Any) -> OSError | None:
    """Return the error where this machine lacks an address, as ::1 in a container; None where it can be bound."""
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return error
        raise
    return None


class Server:
    """A gRPC server with the metrics service and the standard health service.

    It runs on an event loop of its own: a request that is being sent slowly must not keep a thread from the others.

    Args:
        inbox: The destination of the points.
        listen: "host:port"; port 0 takes a free one.
        token: The token that senders must give in `authorization: Bearer TOKEN`; empty for no check.
        tls: Private key and certificate chain, PEM; None for plain text.

    Raises:
        BridgeError: The address can't be bound.
    """

    def __init__(self, inbox: Inbox, listen: str, *, token: str = "", tls: tuple[bytes, bytes] | None = None) -> None:
        _check_free(listen)
        self._store = RequestStore(inbox)
        self._receiver = MetricsReceiver(self._store)
        self.counts = self._store.counts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="otel_train-bridge-grpc", daemon=True)
        self._thread.start()
        try:
            port = self._await(self._bind(listen, token, tls))
        except RuntimeError as error:
            self._end()
            raise BridgeError(f"can't listen on {listen}: {error}; {_ADVICE}") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        """Address that it listens on, with the port that it got."""

    async def _bind(self, listen: str, token: str, tls: tuple[bytes, bytes] | None) -> int:
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
        return self._server.add_secure_port(listen, grpc.ssl_server_credentials([tls]))

    def start(self) -> None:
        """Start serving, and report it to health checks."""
        self._await(self._start())

    async def _start(self) -> None:
        await self._server.start()
        for service in ("", _SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, timeout: float) -> None:
        """Refuse new requests and let those that run end, for at most `timeout` seconds; a second call does nothing."""
        if not self._loop.is_closed():
            self._await(self._stop(timeout))
            self._store.close()
            self._end()

    async def _stop(self, grace: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
