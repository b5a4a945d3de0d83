"""Read where values go: the standard `OTEL_EXPORTER_OTLP_*` variables, checked in a rank and used by the exporters."""

from __future__ import annotations

import ipaddress
import math
import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from otel_train.exceptions import ConfigurationError
from otel_train.otlp.protocol import OtlpProtocol

MAX_TIMEOUT = 60.0
"""Seconds that one request takes at most, whatever the environment says."""
_PREFIXES = ("OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_")
"""Prefixes of the variables: those for metrics override those for all signals."""
_KNOCK = 0.5
"""Seconds that a receiver at the default address, on this machine, has to take a connection."""
_LOCAL_SOCKETS = ("unix:", "unix-abstract:")
_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class Endpoint(NamedTuple):
    """A receiver, and how to speak to it."""

    protocol: OtlpProtocol = OtlpProtocol.GRPC
    target: str = "localhost:4317"
    """Target of a gRPC channel, or URL that HTTP requests go to."""
    secure: bool = False
    """Whether the connection is encrypted."""
    host: str = "localhost"
    """Name or address of the host; empty for a socket of this machine."""
    port: int = 4317
    variable: str = ""
    """Variable that names it; empty for the standard's default address."""
    compression: str = "none"
    timeout: float = 10.0
    """Seconds that one request takes at most."""

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine: so that no proxy is used."""
        if not self.host or self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    @property
    def is_there(self) -> bool:
        """Whether the user has named it, or something listens at the standard's default address."""
        return bool(self.variable) or self.listens

    @property
    def listens(self) -> bool:
        """Whether something takes connections there."""
        # As bytes: a text would load the codec of international names, which takes as long as all else here.
        address: Any = self.host.encode(), self.port
        try:
            with socket.create_connection(address, timeout=_KNOCK):
                return True
        except OSError:
            return False

    def __str__(self) -> str:
        return self.target if self.protocol is OtlpProtocol.HTTP else f"{self.target} (gRPC)"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Endpoint:
        """Read the environment.

        Raises:
            ConfigurationError: A variable does not hold what it must; the message names it.
        """
        protocol = _protocol(environ)
        _check_temporality(environ)
        name, text = _lookup(environ, "ENDPOINT")
        compression_name, compression = _lookup(environ, "COMPRESSION", "none")
        compression = compression.lower()
        if compression not in protocol.compressions:
            raise ConfigurationError(
                f"{compression_name} must be one of {', '.join(protocol.compressions)}, got {compression!r}"
            )
        address: dict[str, Any] = {"port": protocol.default_port}
        if text:
            address = _parse(name, text, protocol, environ)
        elif protocol is OtlpProtocol.HTTP:
            address["target"] = "http://localhost:4318/v1/metrics"
        return cls(protocol=protocol, variable=name, compression=compression, timeout=_timeout(environ), **address)


def _protocol(environ: Mapping[str, str]) -> OtlpProtocol:
    name, text = _lookup(environ, "PROTOCOL", OtlpProtocol.GRPC)
    try:
        return OtlpProtocol(text)
    except ValueError:
        raise ConfigurationError(f"{name} must be {' or '.join(OtlpProtocol)}, got {text!r}") from None


def _lookup(environ: Mapping[str, str], suffix: str, default: str = "") -> tuple[str, str]:
    """Return a variable's name and value: of the metrics' own one, else of the general one, else of none."""
    for prefix in _PREFIXES:
        value = environ.get(prefix + suffix, "").strip()
        if value:
            return prefix + suffix, value
    return "", default


def _check_temporality(environ: Mapping[str, str]) -> None:
    preference = environ.get(_TEMPORALITY, "").strip()
    if preference.lower() not in ("", "cumulative"):
        raise ConfigurationError(
            f"{_TEMPORALITY} must be cumulative, got {preference!r}: counters are sent as running totals, which "
            "survive lost requests; unset it for this job, and let a collector convert them (cumulativetodelta) "
            "where a receiver needs deltas"
        )


def _timeout(environ: Mapping[str, str]) -> float:
    name, text = _lookup(environ, "TIMEOUT", "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ConfigurationError(f"{name} must be a positive number of seconds, got {text!r}")
    return min(seconds, MAX_TIMEOUT)


def _parse(name: str, text: str, protocol: OtlpProtocol, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return an endpoint's target, secure, host and port."""
    if protocol is OtlpProtocol.GRPC and text.startswith(_LOCAL_SOCKETS):
        return {"target": text, "secure": False, "host": "", "port": 0}
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    scheme = scheme.lower()
    try:
        split = urlsplit(f"//{rest}")
        host, port = split.hostname or "", split.port
    except ValueError:
        host, port = "", None
    if scheme not in ("", "http", "https") or not host or any(character.isspace() for character in rest):
        raise ConfigurationError(f"{name} must be http://HOST:PORT, https://HOST:PORT or HOST:PORT, got {text!r}")
    endpoint = Endpoint(host=host)
    secure = scheme == "https" or (not scheme and not _is_plain(environ, endpoint))
    if port is None and not scheme:
        port = protocol.default_port
        split = split._replace(netloc=f"{split.netloc}:{port}")
    if protocol is OtlpProtocol.GRPC:
        port = port or (443 if secure else protocol.default_port)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    else:
        port = port or (443 if secure else 80)
        target = f"{'https' if secure else 'http'}:{split.geturl()}"
        if name == _PREFIXES[1] + "ENDPOINT":
            target = f"{target.removesuffix('/')}/v1/metrics"
    return {"target": target, "secure": secure, "host": host, "port": port}


def _is_plain(environ: Mapping[str, str], endpoint: Endpoint) -> bool:
    """Tell whether an endpoint without a scheme is spoken to in plain text.

    The standard encrypts unless told otherwise. Nothing on this machine listens with a certificate by chance, and
    nobody is between.
    """
    _, insecure = _lookup(environ, "INSECURE")
    return insecure.lower() == "true" if insecure else endpoint.loopback
