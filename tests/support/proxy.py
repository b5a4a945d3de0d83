"""A TCP proxy between a sidecar and its receiver, which does to the connections what a test asks for."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from enum import Enum, auto

CHUNK = 65536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


class Mode(Enum):
    """Ways to treat connections."""

    PASS = auto()
    REFUSE = auto()
    """Nobody listens."""
    HANG = auto()
    """They are taken, and what comes is read; nothing is ever answered."""
    RESET = auto()
    """They pass, and are reset after some bytes of the request."""


class Proxy:
    """A proxy with one address for good; `set` changes mode and receiver, and cuts the connections of before.

    Args:
        port: Where it listens, on the loopback.
        receiver: The port where it connects to.
        seed: Of the bytes after which connections are reset.
    """

    def __init__(self, port: int, receiver: int, seed: int = 0) -> None:
        self.port = port
        self.spoiled = 0
        """Connections that were not let pass since the last `set`."""
        self._receiver = receiver
        self._random = random.Random(seed)
        self._mode = Mode.REFUSE
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def set(self, mode: Mode, receiver: int | None = None) -> None:
        """Go on in that mode, with that receiver where one is given."""
        if self._listener is not None:
            # Shut down first: a close alone does not wake who waits in accept.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            _reset(connection)
        self._open.clear()
        self.spoiled = 0
        self._mode, self._receiver = mode, receiver or self._receiver
        if mode is not Mode.REFUSE:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._mode is Mode.HANG:
                self.spoiled += 1
                while client.recv(CHUNK):
                    pass
                return
            # Of these the connection's own first messages take about 100.
            bound = self._random.randrange(50, 6000) if self._mode is Mode.RESET else None
            server = socket.create_connection(("127.0.0.1", self._receiver))
            self._open.add(server)
            threading.Thread(target=_pump, args=(server, client, None), daemon=True).start()
            self.spoiled += _pump(client, server, bound)
            return
        _reset(client)


def _pump(source: socket.socket, sink: socket.socket, bound: int | None) -> bool:
    """Hand bytes on until one end closes or, where there is a bound, so many have passed; then reset both.

    Returns:
        Whether the bound was reached.
    """
    passed = 0
    with contextlib.suppress(OSError):
        while (bound is None or passed < bound) and (data := source.recv(CHUNK if bound is None else bound - passed)):
            sink.sendall(data)
            passed += len(data)
    _reset(source)
    _reset(sink)
    return passed == bound


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connection.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        connection.close()
