"""A step that a trainer's hooks make: which values it has, and when the session is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.integrations.fit_session import FitSession
from otel_train.integrations.pending_step import LOSS, PendingStep


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PendingStep]:
    """Return a step of a fit under way."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    fit = FitSession(ring_dir=tmp_path / "rings", close_timeout=0.01, blocking=True)
    fit.begin(step=6)
    yield PendingStep(fit)
    fit.end()


def newest(step: PendingStep) -> tuple[int, dict[str, float]]:
    """Return the newest step and its own values."""
    assert step.fit.telemetry is not None
    assert step.fit.telemetry.latest is not None
    number, values = step.fit.telemetry.latest
    return number, {key: value for key, value in values.items() if key in (LOSS, "x")}


def test_micro_batches_make_step(step: PendingStep) -> None:
    """A step has the weighted means of its micro-batches, and ends once, when the optimizer has stepped."""
    for loss, rows, ends in ((2.0, 1, False), (4.0, 3, True)):
        step.begin_batch()
        step.take("x", 2 * loss, rows)
        step.take_loss(loss, rows)
        step.ends = ends
    assert step.fit.last_step == 6
    step.begin_batch()
    step.end()
    assert newest(step) == (7, {LOSS: 3.5, "x": 7.0})
    assert step.fit.last_step == 7


def test_own_loss_replaces_trainers(step: PendingStep) -> None:
    """Where the user logs a `train/loss` the trainer's is left out, whichever comes first."""
    step.take_loss(9.0, 4)
    step.take(LOSS, 2.0, 4)
    step.ends = True
    step.end()
    assert newest(step) == (7, {LOSS: 2.0})


def test_unfinished_step_is_dropped(step: PendingStep) -> None:
    """What was taken for a step that did not end is not in the next fit's first step."""
    step.take_loss(9.0, 4)
    step.take("x", 9.0, 4)
    step.end()
    step.reset()
    step.take_loss(1.0, 4)
    step.ends = True
    step.end()
    assert newest(step) == (7, {LOSS: 1.0})
