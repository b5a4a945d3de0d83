"""Callers of a session and a meter whose steps the core makes: wrappers, patches, classes of their own, late calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import otel_train
from otel_train.native import core

STEPS = range(1, 6)


@pytest.fixture
def telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[otel_train.Telemetry]:
    """Yield a session."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.01) as session:
        yield session


def test_kept_step_survives_close(telemetry: otel_train.Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """A step that a trainer has kept raises nothing after the end, and says once that it came late."""
    for step in STEPS:
        telemetry.step(step)
    kept = telemetry.step
    telemetry.close()
    with caplog.at_level(logging.WARNING):
        assert kept(6) is None
        assert kept(7, {"loss": 1.0}) is None
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "telemetry: step(6) came after close(), and nothing is recorded any more"
    ]


def test_kept_step_survives_fork(telemetry: otel_train.Telemetry) -> None:
    """A step that was kept before a fork raises nothing in the child."""
    for step in STEPS:
        telemetry.step(step)
    kept = telemetry.step
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(kept(6) is not None)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_wrapped_step_stays(telemetry: otel_train.Telemetry) -> None:
    """Who has wrapped a session's step before the first one sees every step, and keeps the wrapper."""
    calls = []
    step_of_session = telemetry.step

    def wrapper(*arguments: Any) -> Any:
        calls.append(arguments)
        return step_of_session(*arguments)

    telemetry.step = wrapper  # type: ignore[assignment]
    for step in STEPS:
        telemetry.step(step, {"loss": float(step)})
    assert [step for step, _ in calls] == list(STEPS)
    telemetry.close()
    assert vars(telemetry)["step"] is wrapper


@pytest.mark.parametrize("whose", ["session", "class"])
def test_patched_step_sees_all(whose: str, telemetry: otel_train.Telemetry) -> None:
    """A mock of a step, of one session or of all, sees every step, and is gone afterwards."""
    if whose == "session":
        patch = mock.patch.object(telemetry, "step", wraps=telemetry.step)
    else:
        original = otel_train.Telemetry.step
        patch = mock.patch.object(otel_train.Telemetry, "step", autospec=True, side_effect=original)
    with patch as patched:
        for step in STEPS:
            telemetry.step(step, {"loss": float(step)})
    assert patched.call_count == len(STEPS)
    telemetry.step(6, {"loss": 6.0})
    assert telemetry.latest is not None
    assert (telemetry.latest[0], telemetry.latest[1]["loss"]) == (6, 6.0)


def test_subclass_counts_own_way() -> None:
    """A meter's class of the user's own has its own pick called."""

    class Doubling(otel_train.MixingMeter):
        """Counts two for each."""

        def pick(self, slot: int, rows: int = 1, tokens: float = 0) -> None:
            """Count."""
            super().pick(slot, 2 * rows, tokens)

    meter = Doubling(1, ["code"], {"code": 1})
    meter.open(0, "code")
    meter.pick(0)
    assert meter.drain_step_metrics()["stream_mixing/picks"] == 2.0


def test_drained_source_may_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a source adds as it is drained, under a key of its own that came late, belongs to the step that drains."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")

    class Adding:
        """A source that adds a scalar at its fourth step."""

        metrics: tuple[otel_train.Scalar, ...] = (otel_train.Scalar("adding/drains", "sum"),)

        def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
            """Add it."""
            if step == 4:
                session.add({"late": 3.0, "loss": 2.0})
            return {"adding/drains": 1.0}

    with otel_train.init(sources=[Adding()], ring_dir=tmp_path, close_timeout=0.01) as session:
        for step in STEPS[:4]:
            session.step(step, {"loss": 1.0})
        assert session.latest is not None
        values = session.latest[1]
    assert (values["late"], values["loss"], values["adding/drains"]) == (3.0, 1.5, 1.0)


@pytest.mark.skipif(core is None, reason="the native core is not built")
def test_mock_is_no_part() -> None:
    """What only says that it is one of the core's objects, as a mock does, is refused: its memory is another."""
    assert core is not None
    parts = [mock.Mock(spec=kind) for kind in (core.IntervalState, core.Clock, core.Ring)]
    assert isinstance(parts[0], core.IntervalState)
    with pytest.raises(TypeError, match=r"got a <class 'unittest\.mock\.Mock'>"):
        core.Steps().bind(None, None, *parts, None, None, None)
