"""Send OTLP/HTTP requests, valid and not, and read the answers."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

PROTOBUF, JSON = "application/x-protobuf", "application/json"


@dataclass(frozen=True)
class HttpAnswer:
    """An answer."""

    status: int
    headers: dict[str, str]
    content: bytes


class HttpClient:
    """One connection to a receiver; it is made anew only where the receiver has ended it.

    Args:
        address: "host:port".
        tls: What checks the receiver's certificate; None for plain text.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        self._connection = (
            http.client.HTTPConnection(address, timeout=60)
            if tls is None
            else http.client.HTTPSConnection(address, timeout=60, context=tls)
        )

    def send(
        self,
        body: bytes | Iterable[bytes] | None = b"",
        content_type: str = PROTOBUF,
        *,
        method: str = "POST",
        path: str = "/v1/metrics",
        **headers: str,
    ) -> HttpAnswer:
        """Send a request, an iterable body in chunks; a header's name has `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type:
            named["Content-Type"] = content_type
        self._connection.request(method, path, body, named)
        answer = self._connection.getresponse()
        return HttpAnswer(answer.status, dict(answer.getheaders()), answer.read())

    @property
    def local_address(self) -> object:
        """This end of the connection."""
        return self._connection.sock and self._connection.sock.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()


def send_raw(address: str, *parts: bytes) -> bytes:
    """Send parts of text, each once the answer to the one before has begun, and return all that comes until the end."""
    host, _, port = address.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
            answer += connection.recv(4096)
        while more := connection.recv(4096):
            answer += more
    return answer
