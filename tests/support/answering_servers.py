"""Servers that give the answer that a test chooses, down to the bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)


@contextlib.contextmanager
def raw_server(*parts: bytes) -> Iterator[tuple[str, list[str]]]:
    """Run a server that answers with these bytes and then a byte at a time for 5 s.

    Yields:
        Its address, and which side ended each connection: "server" or "client".
    """
    ends: list[str] = []

    def answer(client: socket.socket) -> None:
        with client:
            client.recv(1 << 16)
            try:
                client.sendall(b"".join(parts))
                for _ in range(100):
                    client.sendall(b"x")
                    time.sleep(0.05)
                ends.append("server")
            except OSError:
                ends.append("client")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", ends
        server.shutdown(socket.SHUT_RDWR)


class RefusingPart(metrics_service_pb2_grpc.MetricsServiceServicer):
    """A gRPC receiver without gzip that refuses some points of each request."""

    def __init__(self) -> None:
        identity_only = [("grpc.compression_enabled_algorithms_bitset", 1)]
        self._server = grpc.server(ThreadPoolExecutor(1), options=identity_only)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, *_: Any) -> ExportMetricsServiceResponse:  # noqa: N802  # the protocol's name
        return ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too new")
        )
