"""Sessions without a sidecar, and a receiver for those with one."""

from __future__ import annotations

import pytest

from tests.support.rank_ring import receiver

__all__ = ["external_sidecar", "receiver"]


@pytest.fixture
def external_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions start no sidecar, as where the platform runs it."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
