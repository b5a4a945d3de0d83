"""Define OTLP's protocols, for a rank that checks the environment and for the exporters that use it."""

from __future__ import annotations

from enum import StrEnum


class OtlpProtocol(StrEnum):
    """A protocol, with the value that `OTEL_EXPORTER_OTLP_PROTOCOL` has for it."""

    GRPC = "grpc"
    HTTP = "http/protobuf"

    @property
    def default_port(self) -> int:
        """Port of a receiver where the endpoint does not name one."""
        return 4317 if self is OtlpProtocol.GRPC else 4318

    @property
    def compressions(self) -> tuple[str, ...]:
        """Compressions that the SDK's exporter can use."""
        return ("none", "gzip") if self is OtlpProtocol.GRPC else ("none", "gzip", "deflate")
