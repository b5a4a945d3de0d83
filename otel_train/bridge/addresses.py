"""Addresses that a bridge listens on: whether they are free, and the sockets of its HTTP port."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from otel_train.bridge.errors import BridgeError

ADVICE = "give another address or stop the process that has it"
_BACKLOG = 128


def check_free(listen: str) -> None:
    """Check that an address can be bound; where it can't, gRPC would first write lines of its own to standard error.

    Args:
        listen: "host:port".

    Raises:
        BridgeError: It can't.
    """
    with ExitStack() as stack:
        _bind_all(listen, stack)


def open_sockets(listen: str) -> list[socket.socket]:
    """Return a listening socket for each address of a host, all with one port.

    Args:
        listen: "host:port"; port 0 takes a free one.

    Raises:
        BridgeError: It can't be bound.
    """
    with ExitStack() as stack:
        sockets = _bind_all(listen, stack)
        try:
            for bound in sockets:
                bound.listen(_BACKLOG)
        except OSError as error:
            raise _failure(listen, error) from error
        stack.pop_all()
        return sockets


def _bind_all(listen: str, stack: ExitStack) -> list[socket.socket]:
    """Return bound sockets, which the stack closes."""
    host, _, text = listen.rpartition(":")
    port, missing, sockets = int(text), None, list[socket.socket]()
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            try:
                bound = stack.enter_context(socket.socket(family, kind, protocol))
                _bind(bound, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # this machine lacks it, as ::1 in a container
            else:
                sockets.append(bound)
                port = port or bound.getsockname()[1]
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        raise _failure(listen, error) from error
    return sockets


def _bind(bound: socket.socket, address: tuple[object, ...]) -> None:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bound.family == socket.AF_INET6:  # [::] is all addresses, as it is for gRPC
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
    bound.bind(address)


def _failure(listen: str, error: OSError) -> BridgeError:
    return BridgeError(f"can't listen on {listen}: {error.strerror}; {ADVICE}")
