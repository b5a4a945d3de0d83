"""The node's sidecar: rings in, OTLP out."""

from otel_train.sidecar.service import Sidecar, run_sidecar

__all__ = ["Sidecar", "run_sidecar"]
