"""Look for what is wrong with a bridge: whether it serves at both of its ports, and what its state tells."""

from __future__ import annotations

import http.client
import shutil
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from otel_train.bridge.bridge_service import (
    ADDRESS_FILE,
    GRPC_PORT,
    HTTP_ADDRESS_FILE,
    HTTP_PORT,
    OFF,
    default_http,
    host_of,
)
from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox_reader import InboxReader
from otel_train.bridge.inbox_store import INBOX_FILE
from otel_train.bridge.otlp_http import HEALTH_PATH, HEALTHY, METRICS_PATH, PROTOBUF
from otel_train.bridge.server import SERVICE
from otel_train.bridge.troubles import read_troubles
from otel_train.bridge.wandb_sink import LEAST_FREE_BYTES

OLD_BACKLOG_SECONDS = 300.0
"""Age of a step without its row from which on wandb seems not to take rows; `--settle` and a pause are shorter."""
RECENT_SECONDS = 900.0
"""Age of a warning in the bridge's log up to which it is told."""
FULL_SHARE = 0.9
"""Share of `--max-bytes` from which on the inbox is nearly full."""
_TIMEOUT = 5.0


class Port(Enum):
    """Protocol of a port."""

    GRPC = "OTLP/gRPC"
    HTTP = "OTLP/HTTP"


@dataclass(slots=True)
class Report:
    """Findings about a bridge, as lines that each say what to do."""

    broken: list[str] = field(default_factory=list)
    """Reasons why it does not serve."""
    troubled: list[str] = field(default_factory=list)
    """Things that are wrong while it serves."""
    notes: list[str] = field(default_factory=list)
    """Things that may be as they should."""
    serves: list[str] = field(default_factory=list)
    """Addresses that it serves at."""

    @property
    def exit_code(self) -> int:
        """0 where all is well, 1 where it does not serve, 3 where something else is wrong."""
        return 1 if self.broken else 3 if self.troubled else 0


def check_bridge(
    listen: str, http_listen: str, *, state: Path | None = None, tls: bool = False, token: str = "", max_bytes: int
) -> Report:
    """Look at a bridge from outside, without changing anything.

    Args:
        listen: host:port that it takes OTLP/gRPC at.
        http_listen: The same of OTLP/HTTP, "off", or empty for port 4318 where it may be.
        state: Its state directory, where that can be seen; empty addresses are read from there.
        tls: Whether it serves TLS. Only the handshake is tried: its senders check the certificate.
        token: The token that its senders give; empty for none.
        max_bytes: Bound of its inbox.

    Raises:
        ConfigurationError: An address is none.
    """
    for name, given, example in (("listen", listen, GRPC_PORT), ("http_listen", http_listen, HTTP_PORT)):
        if given not in ("", OFF):
            host_of(name, given, example)
    report = Report()
    if state is not None:
        listen, http_listen = _check_running(report, state, listen, http_listen)
        if report.broken:
            return report
    _check_port(report, Port.GRPC, listen, tls=tls, token=token)
    optional = not http_listen
    if optional:
        http_listen = default_http(listen)
    if http_listen != OFF:
        if optional and _refused(http_listen):
            report.notes.append(f"nothing listens at {http_listen}: OTLP/HTTP is off, or elsewhere (--http-listen)")
        else:
            _check_port(report, Port.HTTP, http_listen, tls=tls, token=token)
    if state is not None:
        _check_state(report, state, max_bytes)
    return report


def _check_running(report: Report, state: Path, listen: str, http_listen: str) -> tuple[str, str]:
    """Return the addresses of the bridge that runs on a state directory."""
    if not (state / INBOX_FILE).exists():
        report.broken.append(f"{state} is no bridge's state: it has no {INBOX_FILE}; give --state as the bridge has it")
    addresses = []
    for name, given in ((ADDRESS_FILE, listen), (HTTP_ADDRESS_FILE, http_listen)):
        try:
            address = (state / name).read_text().strip()
        except FileNotFoundError:
            address = "" if name == ADDRESS_FILE else OFF
        if given and address and given != address:
            report.troubled.append(f"the bridge of {state} has {name} {address}, not {given}; give the other one")
        addresses.append(address)
    if not addresses[0] and not report.broken:
        report.broken.append(f"no bridge runs on {state}; start it with --state {state}")
    return addresses[0], addresses[1]


def _check_port(report: Report, port: Port, listen: str, *, tls: bool, token: str) -> None:
    option = "--listen" if port is Port.GRPC else "--http-listen"
    address = _reachable(listen)
    speaks_tls = _speaks_tls(address, "h2" if port is Port.GRPC else "http/1.1")
    if speaks_tls is None:
        report.broken.append(
            f"no bridge serves at {listen}: nothing listens there; start it, or give {option} as it has it"
        )
    elif tls and not speaks_tls:
        report.broken.append(f"no TLS is served at {listen}; leave --tls-certificate out, or give it to the bridge")
    elif speaks_tls and not tls:
        report.broken.append(f"{listen} serves TLS; give --tls-certificate as the bridge has it")
    else:
        ask = _ask_grpc if port is Port.GRPC else _ask_http
        try:
            authorized = ask(address, tls=tls, token=token)
        except BridgeError as error:
            report.broken.append(f"the bridge at {listen} does not serve: {error}")
            return
        except (OSError, grpc.RpcError, http.client.HTTPException, _ForeignError) as error:
            why = str(error) if isinstance(error, _ForeignError) else "it does not speak " + port.value
            report.broken.append(
                f"another program than a bridge has {listen} ({why}); stop it, or give another {option}"
            )
            return
        report.serves.append(listen)
        if authorized is False and token:
            report.troubled.append(
                f"the bridge at {listen} has another token; give OTEL_TRAIN_BRIDGE_TOKEN as it has it"
            )
        elif authorized is False:
            report.notes.append(f"the bridge at {listen} asks for a token, which its senders must have")


class _ForeignError(Exception):
    """Something else than a bridge answers."""


def _reachable(listen: str) -> str:
    """Return an address that a bridge that listens on all interfaces can be asked at."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  # asked, not bound
    return f"{host}:{port}"


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT)


def _refused(listen: str) -> bool:
    try:
        _connect(_reachable(listen)).close()
    except OSError:
        return True
    return False


def _unchecked(protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


def _speaks_tls(address: str, protocol: str) -> bool | None:
    """Tell whether a port takes a TLS handshake; None where nothing listens."""
    try:
        plain = _connect(address)
    except OSError:
        return None
    with plain:
        try:
            with _unchecked(protocol).wrap_socket(plain):
                return True
        except OSError:
            return False


def _ask_grpc(address: str, *, tls: bool, token: str) -> bool | None:
    """Tell whether senders with the token are let in; None where that can't be asked."""
    if tls:  # a channel would check the certificate
        with _unchecked("h2").wrap_socket(_connect(address)) as secure:
            if secure.selected_alpn_protocol() != "h2":
                raise _ForeignError("its TLS is not gRPC's")
        return None
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=_TIMEOUT
            )
        except grpc.RpcError as error:
            raise _ForeignError(f"its health service says {error.code().name}") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise BridgeError("it is stopping; ask again in some seconds")
        export = channel.unary_unary(f"/{SERVICE}/Export", Empty.SerializeToString, Empty.FromString)
        try:
            export(Empty(), metadata=(("authorization", f"Bearer {token}"),), timeout=_TIMEOUT)
        except grpc.RpcError as error:
            return False if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return True


def _ask_http(address: str, *, tls: bool, token: str) -> bool | None:
    """Tell whether senders with the token are let in; None where that can't be asked."""
    with _http(address, tls=tls) as connection:
        connection.request("GET", HEALTH_PATH)
        answer = connection.getresponse()
        if answer.read(len(HEALTHY) + 1) != HEALTHY:
            raise _ForeignError(f"its {HEALTH_PATH} is {answer.status}")
        headers = {"Content-Type": PROTOBUF, "Authorization": f"Bearer {token}"}
        connection.request("POST", METRICS_PATH, b"", headers)
        return connection.getresponse().status != http.HTTPStatus.UNAUTHORIZED


@contextmanager
def _http(address: str, *, tls: bool) -> Iterator[http.client.HTTPConnection]:
    if tls:
        context = _unchecked("http/1.1")
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(address, timeout=_TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)
    with closing(connection):
        yield connection


def _check_state(report: Report, state: Path, max_bytes: int) -> None:
    for trouble in read_troubles(state):
        age = time.time() - trouble.time
        if trouble.lasting:
            report.troubled.append(f"the bridge of {state}: {trouble.text}")
        elif age < RECENT_SECONDS:
            report.notes.append(f"the bridge's log {age / 60:.0f} minutes ago: {trouble.text}")
    free = shutil.disk_usage(state).free
    if free < LEAST_FREE_BYTES:
        report.troubled.append(f"the disk of {state} has {free} bytes left, no rows are written; make room there")
    try:
        with closing(InboxReader.open(state)) as reader:
            count, since_ns = reader.backlog()
        used = _used_bytes(state / INBOX_FILE)
    except (BridgeError, sqlite3.Error) as error:
        report.troubled.append(f"the inbox of {state} can't be read ({error}); look at its disk")
        return
    age = 0.0 if since_ns is None else (time.time_ns() - since_ns) / 1e9
    if age > OLD_BACKLOG_SECONDS:
        report.troubled.append(
            f"{count} steps have no row in wandb, the first for {age / 60:.0f} minutes; "
            "look at the bridge's log: wandb's server is away or refuses the key, or its disk is full"
        )
    if used > FULL_SHARE * max_bytes:
        report.troubled.append(
            f"the inbox has {used} of {max_bytes} bytes, and refuses requests beyond; "
            "have wandb take rows, or give the bridge a larger --max-bytes"
        )


def _used_bytes(inbox: Path) -> int:
    with closing(sqlite3.connect(f"{inbox.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT)) as connection:
        pages, unused, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - unused) * size)
