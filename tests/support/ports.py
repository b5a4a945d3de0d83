"""Find a port to listen on, and see whether a service answers on one."""

from __future__ import annotations

import socket
import urllib.request


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(url: str) -> bool:
    """Tell whether a service says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False
