"""Looks at what other threads do."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

import pytest

from otel_train.step.thread_frames import frames_of_threads


def test_collector_rests_during_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector, which would let other threads in, is off during a look, and then as it was."""
    collects, look = [], sys._current_frames

    def observed() -> dict[int, FrameType]:
        collects.append(gc.isenabled())
        return look()

    monkeypatch.setattr(sys, "_current_frames", observed)
    assert threading.get_ident() in frames_of_threads()
    assert gc.isenabled()
    gc.disable()
    try:
        frames_of_threads()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert collects == [False, False]
