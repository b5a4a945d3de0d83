"""Ask a running bridge for its health, as a container's health check does."""

from __future__ import annotations

import socket
import ssl

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def serving(listen: str, *, tls: bool = False, timeout: float = 5.0) -> bool:
    """Tell whether a bridge serves.

    Args:
        listen: host:port that it listens on; all interfaces are asked by loopback.
        tls: Whether it serves TLS. Only the handshake is tried: its senders check the certificate.
        timeout: Seconds to wait.
    """
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  # asked, not bound
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((host.strip("[]"), int(port)), timeout) as plain,
                context.wrap_socket(plain),
            ):
                return True
        except OSError:
            return False
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
