"""Sessions without a sidecar."""

from __future__ import annotations

import pytest


@pytest.fixture
def external_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions start no sidecar, as where the platform runs it."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
