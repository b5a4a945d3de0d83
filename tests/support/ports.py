"""Find a port to listen on, and see whether a service answers on one."""

from __future__ import annotations

import random
import socket
import urllib.request
from pathlib import Path

FIRST = 10_000
"""Ports below it belong to services."""
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on.

    It is none of those that the system gives to connections, where there are others, so that nobody has it when a
    program begins to listen.
    """
    end = int(EPHEMERAL.read_text().split()[0])
    # Where the system may give all of them to connections, any that is free now.
    ports = random.SystemRandom().sample(range(FIRST, end), 100) if end >= FIRST + 100 else [0]
    for port in ports:
        try:
            with socket.create_server(("127.0.0.1", port)) as server:
                return int(server.getsockname()[1])
        except OSError:
            continue
    raise AssertionError(f"of {len(ports)} ports none is free")


def answers(url: str) -> bool:
    """Tell whether a service says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False
