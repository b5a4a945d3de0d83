"""The receiver as the standard variables give it."""

from __future__ import annotations

import pytest

from otel_train.endpoint import Endpoint
from otel_train.exceptions import ConfigurationError
from otel_train.otlp.protocol import OtlpProtocol

ENDPOINT, METRICS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
INSECURE, PROTOCOL = "OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_PROTOCOL"
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


@pytest.mark.parametrize(
    ("environ", "target", "secure"),
    [
        ({}, "localhost:4317", False),
        ({PROTOCOL: OtlpProtocol.HTTP}, "http://localhost:4318/v1/metrics", False),
        ({ENDPOINT: "localhost:4317"}, "localhost:4317", False),
        ({ENDPOINT: "127.0.0.1"}, "127.0.0.1:4317", False),
        ({ENDPOINT: "[::1]:9"}, "[::1]:9", False),
        ({ENDPOINT: "localhost:1", INSECURE: "false"}, "localhost:1", True),
        ({ENDPOINT: "collector:4317"}, "collector:4317", True),
        ({ENDPOINT: "collector:4317", INSECURE: "True"}, "collector:4317", False),
        ({ENDPOINT: "http://collector:4317", INSECURE: "false"}, "collector:4317", False),
        ({ENDPOINT: "HTTPS://collector:4317", INSECURE: "true"}, "collector:4317", True),
        ({ENDPOINT: "https://collector"}, "collector:443", True),
        ({ENDPOINT: "http://user:word@collector:4317/path"}, "collector:4317", False),
        ({ENDPOINT: "unix:///run/otlp.sock"}, "unix:///run/otlp.sock", False),
        ({ENDPOINT: "http://general:1", METRICS: "http://own:2"}, "own:2", False),
        ({PROTOCOL: OtlpProtocol.HTTP, ENDPOINT: "http://h:1/base/"}, "http://h:1/base/v1/metrics", False),
        ({PROTOCOL: OtlpProtocol.HTTP, ENDPOINT: "localhost"}, "http://localhost:4318/v1/metrics", False),
        ({PROTOCOL: OtlpProtocol.HTTP, METRICS: "https://h/api/otlp?a=b"}, "https://h/api/otlp?a=b", True),
    ],
)
def test_endpoint_follows_standard(environ: dict[str, str], target: str, secure: bool) -> None:
    """The scheme overrides `INSECURE`; without one a loopback address is spoken to in plain text."""
    endpoint = Endpoint.read(environ)
    assert (endpoint.target, endpoint.secure) == (target, secure)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({ENDPOINT: "ftp://h:1"}, ENDPOINT),
        ({METRICS: "http://h:99999"}, METRICS),
        ({ENDPOINT: "http://"}, ENDPOINT),
        ({ENDPOINT: "http://h h:1"}, ENDPOINT),
        ({TEMPORALITY: "Delta"}, f"{TEMPORALITY} must be cumulative, got 'Delta'"),
        ({TEMPORALITY: "lowmemory"}, TEMPORALITY),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "nan"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ],
)
def test_wrong_variable_is_named(environ: dict[str, str], names: str) -> None:
    """A value that can't be honoured is refused, with the variable's name."""
    with pytest.raises(ConfigurationError, match=names):
        Endpoint.read(environ)


def test_harmless_values_are_taken() -> None:
    """Empty variables count as unset, case does not matter, and no request takes longer than a minute."""
    given = {ENDPOINT: " ", TEMPORALITY: "CUMULATIVE", "OTEL_EXPORTER_OTLP_TIMEOUT": "10000", INSECURE: ""}
    endpoint = Endpoint.read({**given, "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP"})
    assert (endpoint.variable, endpoint.loopback, endpoint.timeout, endpoint.compression) == ("", True, 60.0, "gzip")
