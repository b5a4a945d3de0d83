"""Warnings that are logged once."""

from __future__ import annotations

import logging

import pytest

from otel_train.log_once import MOST_CAUSES, OnceLogger, OutageLogger

LOGGER = logging.getLogger("otel_train.test")


def test_warn_logs_each_cause_once(caplog: pytest.LogCaptureFixture) -> None:
    """A cause is logged the first time that it comes, with its arguments, and never again."""
    warnings = OnceLogger(LOGGER)
    assert [warnings.warn(cause, "%s at %d", cause, step) for step, cause in enumerate("aab")] == [True, False, True]
    assert caplog.messages == ["a at 0", "b at 2"]


def test_warn_stops_at_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond so many causes one message says so, and no more come."""
    warnings = OnceLogger(LOGGER)
    logged = [warnings.warn(str(number), "cause %d", number) for number in range(MOST_CAUSES + 5)]
    assert logged == [True] * MOST_CAUSES + [False] * 5
    assert len(caplog.messages) == MOST_CAUSES + 1
    assert "no more are logged" in caplog.messages[-1]


def test_warn_repeats_after_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that forgets logs a cause again once it has been quiet for so long, and takes any number of causes."""
    times = iter([100.0, 109.0, 118.0, 128.0, *[128.0] * 2 * MOST_CAUSES])
    monkeypatch.setattr("otel_train.log_once.time.monotonic", lambda: next(times))
    warnings = OnceLogger(LOGGER, again_after=10.0)
    assert [warnings.warn("a", "cause") for _ in range(4)] == [True, False, False, True]
    assert all(warnings.warn(str(number), "cause") for number in range(2 * MOST_CAUSES))


def test_outage_logs_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure of several in a row is logged, and the first success after them."""
    caplog.set_level(logging.INFO)
    outages = OutageLogger(LOGGER)
    outages.worked("works")
    for number in range(3):
        outages.failed("fails: %d", number)
    for _ in range(2):
        outages.worked("works again")
    assert caplog.messages == ["fails: 0", "works again"]
