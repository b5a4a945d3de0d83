"""Read which receiver is to be checked, where else it may take OTLP, and where its store may answer queries."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from otel_train.endpoint import Endpoint
from otel_train.exceptions import ConfigurationError
from otel_train.otlp.protocol import OtlpProtocol

WHOLE, BASE = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PATHS = (
    "/v1/metrics",
    "/api/v1/otlp/v1/metrics",
    "/opentelemetry/v1/metrics",
    "/api/v1/otlp",
    "/otlp/v1/metrics",
)
"""Paths at which receivers take OTLP metrics: a collector, Prometheus and Cortex, VictoriaMetrics, Thanos, Mimir."""
TRY_TIMEOUT = 5.0
"""Seconds that a request to a guessed address may take."""


def receiver_endpoint(url: str, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the receiver that the environment names, as a sidecar would; a URL overrides the address only.

    Examples:
        >>> from otel_train.probe.receiver_address import receiver_endpoint
        >>> receiver_endpoint("http://store:9090/api/v1/otlp", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}).target
        'http://store:9090/api/v1/otlp'
        >>> receiver_endpoint("http://collector:4317", {}).target
        'collector:4317'

    Args:
        url: An address; with a path it is the whole URL of the metrics. Empty for the environment's.
        environ: The environment.

    Raises:
        ConfigurationError: The address, or a variable, does not hold what it must.
    """
    if not url:
        return Endpoint.read(environ)
    name = WHOLE if path_of(url) else BASE
    given = {variable: value for variable, value in environ.items() if variable not in (WHOLE, BASE)} | {name: url}
    try:
        return Endpoint.read(given)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace(name, "--receiver")) from None


def path_of(url: str) -> str:
    """Return the path of an address with or without a scheme, without slashes at its ends."""
    return url.rpartition("://")[2].partition("/")[2].strip("/")


def settings_of(endpoint: Endpoint) -> str:
    """Return the variables that name a receiver, as a shell takes them."""
    protocol = f"{_PROTOCOLS[1]}={endpoint.protocol}"
    if endpoint.protocol is OtlpProtocol.HTTP:
        return f"{protocol} {WHOLE}={endpoint.target}"
    return f"{protocol} {BASE}={'https' if endpoint.secure else 'http'}://{endpoint.target}"


def alternatives(endpoint: Endpoint, url: str) -> Iterator[Endpoint]:
    """Yield other ways to speak to the same port: the other protocol, and the paths that receivers have.

    Args:
        endpoint: The receiver that does not take what is sent.
        url: The address that was given for it.
    """
    if not endpoint.host:
        return
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    other = endpoint._replace(timeout=min(endpoint.timeout, TRY_TIMEOUT), compression="none", variable=WHOLE)
    given = path_of(url)
    guesses = [f"/{given}", f"/{given}/v1/metrics"] if given else []
    for path in dict.fromkeys([*guesses, *PATHS]):
        target = f"{'https' if endpoint.secure else 'http'}://{host}:{endpoint.port}{path}"
        if target != endpoint.target:
            yield other._replace(protocol=OtlpProtocol.HTTP, target=target)
    if endpoint.protocol is OtlpProtocol.HTTP:
        yield other._replace(protocol=OtlpProtocol.GRPC, target=f"{host}:{endpoint.port}", variable=BASE)


def speaks_tls(endpoint: Endpoint) -> bool:
    """Tell whether a receiver begins TLS when it is asked to, whoever vouches for it; nothing is sent to it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address, limit = (endpoint.host, endpoint.port), min(endpoint.timeout, TRY_TIMEOUT)
    try:
        with socket.create_connection(address, limit) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False


def query_addresses(endpoint: Endpoint) -> list[str]:
    """Return where the store behind a receiver may answer queries, the likeliest first; none for gRPC.

    Examples:
        >>> from otel_train.probe.receiver_address import query_addresses, receiver_endpoint
        >>> over_http = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        >>> query_addresses(receiver_endpoint("http://store:9090/api/v1/otlp/v1/metrics", over_http))
        ['http://store:9090', 'http://store:9090/prometheus']
    """
    if endpoint.protocol is not OtlpProtocol.HTTP:
        return []
    split = urlsplit(endpoint.target)
    base = split.path.rstrip("/")
    for path in sorted(PATHS, key=len, reverse=True):
        if base.endswith(path):
            base = base.removesuffix(path)
            break
    address = f"{split.scheme}://{split.netloc}{base}"
    return [address, f"{address}/prometheus"]
