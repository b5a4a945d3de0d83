"""Clients that begin a request and then send a byte a second, over HTTP/1.1 and gRPC (frames by hand, RFC 9113)."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK, _END_HEADERS = 1, 4
_STREAM = 1
_PATH = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
BODY = 1000
"""Bytes that the request is to have: none of these clients comes to its end."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _await_ping(connection: socket.socket) -> None:
    """Wait until the receiver answers a ping: it has read what was sent before it."""
    connection.sendall(_frame(_PING, 0, 0, bytes(8)))
    with connection.makefile("rb") as stream:
        while head := stream.read(9):
            stream.read(int.from_bytes(head[:3], "big"))
            if head[3:5] == bytes([_PING, _ACK]):
                return


def _header(name: str, value: str) -> bytes:
    """Return a header as HPACK writes one that is in no table (RFC 7541, 6.2.2), name and value below 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class _Trickling:
    """Connections that get a few bytes more each second, until the end of the block."""

    _more = b""
    """What each gets."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trickle)

    def _trickle(self) -> None:
        while not self._stop.wait(1):
            for connection in self._sockets:
                with contextlib.suppress(OSError):  # the receiver may end it
                    connection.sendall(self._more)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self._sockets:
            connection.close()


class SlowSenders(_Trickling):
    """So many connections, each with one request that never gets whole, until the end of the block.

    Args:
        address: "host:port" of the receiver.
        count: Number of connections.
    """

    _more = _frame(_DATA, 0, _STREAM, b"\0")

    def __init__(self, address: str, count: int) -> None:
        super().__init__()
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._count = count

    def __enter__(self) -> Self:
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": _PATH,
            ":authority": "bridge",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(_header(name, value) for name, value in headers.items())
        begin = b"\0" + BODY.to_bytes(4, "big")  # gRPC's: not compressed, so long
        for _ in range(self._count):
            connection = socket.create_connection(self._address)
            self._sockets.append(connection)
            connection.sendall(
                _PREFACE
                + _frame(_SETTINGS, 0, 0, b"")
                + _frame(_HEADERS, _END_HEADERS, _STREAM, block)
                + _frame(_DATA, 0, _STREAM, begin)
            )
        for connection in self._sockets:
            _await_ping(connection)
        self._thread.start()
        return self


class SlowHttpSenders(_Trickling):
    """So many connections of HTTP/1.1, half of them within the headers and half within the body, until the block's end.

    Args:
        address: "host:port" of the receiver.
        authorization: The header that it asks for.
        count: Number of connections.
    """

    _more = b"x"

    def __init__(self, address: str, authorization: str, count: int) -> None:
        super().__init__()
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._head = (
            f"POST /v1/metrics HTTP/1.1\r\nHost: bridge\r\nAuthorization: {authorization}\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {BODY}\r\nX: "
        )
        self._sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> Self:
        for index, connection in enumerate(self._sockets):
            connection.connect(self._address)
            connection.sendall((self._head + ("\r\n\r\n" if index % 2 else "")).encode())
        self._thread.start()
        return self
