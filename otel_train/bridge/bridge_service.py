"""Run the bridge as a service: its configuration, its parts, its start and its stop."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox import Inbox, Limits
from otel_train.bridge.open_runs import OpenRuns, most_open
from otel_train.bridge.own_metrics import exporting
from otel_train.bridge.row_order import Due
from otel_train.bridge.row_writer import Writer
from otel_train.bridge.server import Server, Tls
from otel_train.bridge.troubles import Troubles
from otel_train.bridge.wandb_environment import left_out
from otel_train.bridge.wandb_file import WANDB_FOLDER
from otel_train.bridge.wandb_processes import end_writers
from otel_train.bridge.wandb_sink import WandbSink
from otel_train.descriptors import allow_descriptors
from otel_train.exceptions import ConfigurationError
from otel_train.paths import absolute
from otel_train.wakeup import Wakeup

logger = logging.getLogger(__name__)

ADDRESS_FILE, HTTP_ADDRESS_FILE = "address", "http-address"
GRPC_PORT, HTTP_PORT = 4317, 4318
OFF = "off"
WANDB_MODES = ("offline", "online")
DESCRIPTORS = 4096
"""Descriptors that the process may have, where the system allows it."""
STOP_SECONDS, SERVER_STOP_SECONDS = 4.5, 1.0
"""Seconds for a stop in all, and for the requests in flight; a stopped bridge is gone within five."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeConfig:
    """Configuration of a bridge."""

    state: Path
    """The directory that the bridge owns: inbox, wandb files, address. Like the other paths, it may begin with `~`, be
    relative and lead through links; the configuration holds the absolute path."""
    listen: str = "127.0.0.1:4317"
    """host:port for OTLP/gRPC; port 0 takes a free one, which STATE/address then names."""
    http_listen: str = ""
    """The same for OTLP/HTTP, named by STATE/http-address; `off` for none. Empty, it is port 4318 of the same host
    where gRPC has 4317, else off: the two ports are OTLP's, and who chooses one chooses the other too."""
    wandb_mode: str = "offline"
    """offline or online."""
    project: str = "otel-train"
    """The wandb project."""
    settle: float = 30.0
    """Seconds after which a step's row is written although points of it, or steps before it, are missing."""
    linger: float = 0.5
    """Seconds that a complete step waits for an earlier one that is late, where its sender does not number steps. The
    first step of an attempt waits too, until the one before has been quiet for ten times as long."""
    max_bytes: int = Limits().max_bytes
    """Size of the inbox, which holds what wandb lacks; beyond that senders are asked to try again."""
    max_series: int = Limits().max_series
    """Series of one run; points of further ones are refused."""
    token: str = ""
    """Token that senders must give in `authorization: Bearer TOKEN`."""
    tls_certificate: Path | None = None
    """A PEM file with the server's certificate chain."""
    tls_key: Path | None = None
    """A PEM file with its private key."""

    def __post_init__(self) -> None:
        for name in ("state", "tls_certificate", "tls_key"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, absolute(path))
        host = host_of("listen", self.listen, GRPC_PORT)
        if not self.http_listen:
            object.__setattr__(self, "http_listen", default_http(self.listen))
        hosts = {"listen": host}
        if self.http_listen != OFF:
            hosts["http_listen"] = host_of("http_listen", self.http_listen, HTTP_PORT)
            if self.http_listen == self.listen and not self.listen.endswith(":0"):
                raise ConfigurationError(
                    f"bridge.http_listen must be another address than bridge.listen, got {self.listen} for both; "
                    f"gRPC and HTTP have ports of their own, {GRPC_PORT} and {HTTP_PORT}"
                )
        if self.wandb_mode not in WANDB_MODES:
            raise ConfigurationError(
                f"bridge.wandb_mode must be one of {', '.join(WANDB_MODES)}, got {self.wandb_mode!r}"
            )
        for name, value in (("settle", self.settle), ("linger", self.linger)):
            if not 0 <= value <= 86400:
                raise ConfigurationError(f"bridge.{name} must be 0 to 86400 seconds, got {value}")
        for name, least in (("max_bytes", 2**20), ("max_series", 1)):
            if not getattr(self, name) >= least:
                raise ConfigurationError(f"bridge.{name} must be at least {least}, got {getattr(self, name)}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigurationError("bridge.tls_certificate and bridge.tls_key go together, got one of them")
        for name, host in hosts.items():
            if not (_is_loopback(host) or self.token or self.tls_key):
                raise ConfigurationError(
                    f"bridge.{name} is beyond loopback ({getattr(self, name)}): "
                    "give a token or TLS files, or use 127.0.0.1"
                )


class Bridge:
    """A running bridge; a context manager that starts and stops it.

    Args:
        config: Its configuration.

    Raises:
        BridgeError: The state directory is not usable or another bridge's, or the address is taken.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._inbox = Inbox(config.state, Limits(config.max_bytes, config.max_series))
        try:
            end_writers(config.state / WANDB_FOLDER)
            http_listen = "" if config.http_listen == OFF else config.http_listen
            self._server = Server(
                self._inbox, config.listen, http_listen=http_listen, token=config.token, tls=_tls(config)
            )
        except BaseException:
            self._inbox.close()
            raise
        self._writer = Writer(
            self._inbox,
            WandbSink(config.state, config.wandb_mode, config.project),
            Due(settle_ns=int(config.settle * 1e9), linger_ns=int(config.linger * 1e9), since_ns=time.time_ns()),
            open_runs=OpenRuns(most_open(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        )
        self._exporting = ExitStack()
        self._troubles = Troubles(config.state)
        self.address = self._server.address
        """Address that it takes OTLP/gRPC at, with the port that it got."""
        self.http_address = self._server.http_address
        """The same for OTLP/HTTP; empty where it takes none."""

    def __enter__(self) -> Self:
        self._troubles.attach()
        self._writer.start()
        self._server.start()
        self._exporting.enter_context(exporting(self._inbox, self._writer, self._server.counts))
        if self.http_address:
            self._tell(HTTP_ADDRESS_FILE, self.http_address)
        self._tell(ADDRESS_FILE, self.address)
        return self

    def _tell(self, name: str, address: str) -> None:
        # Written beside it and renamed, so that a reader sees a whole address or none.
        fresh = self._config.state / f".{name}"
        fresh.write_text(f"{address}\n")
        fresh.replace(self._config.state / name)

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> bool:
        """Take no more requests, write every complete step, finish the wandb runs.

        Returns:
            Whether wandb finished in time; if not, what it lacks is in the inbox for the next bridge.
        """
        deadline = time.monotonic() + STOP_SECONDS
        for name in (ADDRESS_FILE, HTTP_ADDRESS_FILE):
            (self._config.state / name).unlink(missing_ok=True)
        self._server.stop(SERVER_STOP_SECONDS)
        self._exporting.close()
        finished = self._writer.stop(max(0.0, deadline - time.monotonic()))
        if finished:
            self._inbox.close()
        self._troubles.close()
        return finished


def run_bridge(config: BridgeConfig, *, ready: Callable[[str], None] | None = None) -> int:
    """Run a bridge until SIGTERM or SIGINT; call it in the main thread of its own process.

    Args:
        config: Its configuration.
        ready: Called with the bound address once requests are taken.

    Returns:
        The exit status: 0 when wandb finished in time; whatever it did not take is kept for the next bridge.

    Raises:
        BridgeError: The bridge can't start.
    """
    if ignored := left_out(os.environ):
        logger.info("%s: for one job's run, not for a bridge's; ignored", ", ".join(ignored))
    allow_descriptors(DESCRIPTORS)
    wakeup = Wakeup()
    with wakeup.handling(dict.fromkeys((signal.SIGTERM, signal.SIGINT), wakeup.set)):
        bridge = Bridge(config)
        with bridge:
            over_http = f", OTLP/HTTP on {bridge.http_address}" if bridge.http_address else ""
            logger.info("bridge listens on %s%s, state in %s", bridge.address, over_http, config.state)
            if ready is not None:
                ready(bridge.address)
            wakeup.wait()
            if not bridge.stop():
                logger.error("wandb did not finish in time; the rest is kept in %s", config.state)
                logging.shutdown()
                # wandb waits for its uploads at exit without a bound; a service manager would kill us instead.
                os._exit(1)
    return 0


def host_of(name: str, listen: str, example: int) -> str:
    """Return the host of an address.

    Args:
        name: Name of its field of the configuration.
        listen: "host:port".
        example: A port for the advice.

    Raises:
        ConfigurationError: It is something else: a URL, a port alone.
    """
    host, separator, port = listen.rpartition(":")
    if not (separator and host and "/" not in host and port.isascii() and port.isdigit() and int(port) < 2**16):
        off = f", or {OFF}" if example == HTTP_PORT else ""
        raise ConfigurationError(f"bridge.{name} must be host:port{off}, got {listen!r}; try 127.0.0.1:{example}")
    return host


def default_http(listen: str) -> str:
    """Return where OTLP/HTTP is taken beside OTLP/gRPC: at its standard port where gRPC is at its own, else nowhere."""
    host, _, port = listen.rpartition(":")
    return f"{host}:{HTTP_PORT}" if port == str(GRPC_PORT) else OFF


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _tls(config: BridgeConfig) -> Tls | None:
    if config.tls_key is None or config.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password, it would be asked for at a terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
        return Tls(config.tls_key.read_bytes(), config.tls_certificate.read_bytes(), context)
    except OSError as error:  # ssl's errors are such
        raise BridgeError(f"can't use the TLS files {config.tls_certificate} and {config.tls_key}: {error}") from error
