"""Read which of OTLP's protocols the environment asks for: a rank checks it, and the exporters use it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from otel_train.exceptions import ConfigurationError

GRPC, HTTP = "grpc", "http/protobuf"
_VARIABLES = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def otlp_protocol(environ: Mapping[str, str] = os.environ) -> str:
    """Return the protocol: the variable for metrics overrides the general one, and gRPC is the default.

    Raises:
        ConfigurationError: It is one that is not supported.
    """
    for name in _VARIABLES:
        protocol = environ.get(name, "").strip()
        if protocol:
            if protocol not in (GRPC, HTTP):
                raise ConfigurationError(f"{name} must be {GRPC} or {HTTP}, got {protocol!r}")
            return protocol
    return GRPC
