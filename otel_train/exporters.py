"""The SDK's OTLP exporters, made for the endpoint that the environment names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from otel_train.endpoint import Endpoint


def grpc_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of the SDK's gRPC exporter: it reads the endpoint's variables another way than the standard.

    Headers and certificates it reads itself.
    """
    from grpc import Compression  # noqa: PLC0415  # loaded only where gRPC is spoken

    # A proxy of the environment can't reach this machine's own addresses.
    options = (("grpc.enable_http_proxy", 0),) if endpoint.loopback else ()
    return {
        "endpoint": endpoint.target,
        "insecure": not endpoint.secure,
        "timeout": endpoint.timeout,
        "compression": Compression.Gzip if endpoint.compression == "gzip" else Compression.NoCompression,
        "channel_options": options,
    }


def http_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of the SDK's HTTP exporter; headers and certificates it reads itself."""
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415

    return {
        "endpoint": endpoint.target,
        "timeout": endpoint.timeout,
        "compression": Compression(endpoint.compression),
        "session": None if not endpoint.loopback else direct_session(),
    }


def direct_session() -> Any:
    """Return a session that goes through no proxy of the environment."""
    from requests import Session  # noqa: PLC0415

    class DirectSession(Session):
        def merge_environment_settings(self, url: Any, proxies: Any, *settings: Any) -> Any:
            direct = {**proxies, "no_proxy": urlsplit(url).hostname}
            return super().merge_environment_settings(url, direct, *settings)

    return DirectSession()
