"""A JSON request of OTLP/HTTP: read, or refused by a ValueError; what is read is taken as from gRPC."""

from __future__ import annotations

from fuzz.targets import otlp
from otel_train.bridge.otlp_json import read_request


def run(data: bytes) -> None:
    """Take a text as the bridge does."""
    try:
        request = read_request(data)
    except ValueError:
        return
    otlp.run(request)
