"""Progress that the training process and its workers share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from otel_train.mixing.progress import WorkerProgress


def test_no_wait_for_ended_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that was dropped after its first batch may have ended a worker before it began."""
    monkeypatch.setattr("otel_train.mixing.progress.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=pytest.fail))
    progress = WorkerProgress()
    progress.begin(0, workers=2, times=1)
    progress.await_workers()
