"""The node's sidecar: rings in, OTLP out.

`service` is the process. For each ring a `feed` reads records and has `points` make data points of them; `sender` sends
these by `otel_train.otlp`, and the ring's cursor moves when they are acknowledged.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_train.sidecar.service import Sidecar, run_sidecar

__all__ = ["Sidecar", "run_sidecar"]


def __getattr__(name: str) -> Any:
    """Import the service when it is asked for: what starts a sidecar looks for its libraries before."""
    if name in __all__:
        return getattr(import_module("otel_train.sidecar.service"), name)
    raise AttributeError(f"module 'otel_train.sidecar' has no attribute {name!r}")
