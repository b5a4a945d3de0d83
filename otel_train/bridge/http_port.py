"""A port that HTTP/1.1 is served on, with a bound on its connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

from otel_train.bridge.http_connection import READ_BYTES, Answer, Connection, Respond

MAX_CONNECTIONS = 512
"""Clients at once; further ones are asked to try again. A descriptor is spent on each."""
HANDSHAKE_SECONDS = 10.0
_FULL = Answer(503, b"too many connections; try again\n", (("Content-Type", "text/plain"), ("Retry-After", "5")))


class HttpPort:
    """Serves the connections of a port; its methods are called on one event loop.

    Args:
        sockets: Bound sockets, one for each of the port's addresses.
        respond: Makes the answers.
        tls: Makes the connections TLS; None for plain text.
    """

    def __init__(self, sockets: Sequence[socket.socket], respond: Respond, tls: ssl.SSLContext | None) -> None:
        self._sockets, self._respond, self._tls = sockets, respond, tls
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}

    async def start(self) -> None:
        """Take connections from now on."""
        handshake = None if self._tls is None else HANDSHAKE_SECONDS
        for bound in self._sockets:
            self._servers.append(
                await asyncio.start_server(
                    self._serve, sock=bound, ssl=self._tls, ssl_handshake_timeout=handshake, limit=READ_BYTES
                )
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(reader, writer, self._respond)
        full = len(self._connections) >= MAX_CONNECTIONS
        self._connections[task] = connection
        try:
            await (connection.refuse(_FULL) if full else connection.serve())
        except asyncio.CancelledError:  # by `stop`, which is all that ends a connection so
            pass
        finally:
            del self._connections[task]

    async def stop(self, grace: float) -> None:
        """Take no more connections, end idle ones, and wait for the answers of the others for `grace` seconds."""
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        for task, connection in self._connections.items():
            connection.last = True
            if connection.idle:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace)
