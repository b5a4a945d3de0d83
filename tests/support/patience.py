"""What sessions of jobs under test wait for: each other for as long as a busy machine takes, and nobody who sends."""

from __future__ import annotations

import os
from typing import Any, TypedDict

from otel_train.endpoint import Endpoint


class Bounds(TypedDict):
    """Options of a session."""

    reduction_timeout: float
    close_timeout: float


BOUNDS = Bounds(reduction_timeout=60.0, close_timeout=60.0)
"""What a session is given: with its own bounds a rank that stalls for seconds costs values of the cluster."""


def have_nobody_send() -> None:
    """Have nobody send what this process's sessions record, so that no end of one waits for that."""
    os.environ.pop("OTEL_TRAIN_SIDECAR", None)
    anywhere: Any = Endpoint
    anywhere.listens = False  # a collector of somebody else's gets nothing
