"""Fixtures of the stack's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import stack_programs as programs
from tests.support.compose_stack import Stack, running_stack


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Return Prometheus' promtool."""
    return programs.promtool()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Run the stack as long as the session."""
    with running_stack() as running:
        yield running
