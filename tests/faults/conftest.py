"""The pipeline that short jobs share, and the table of step times at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pipeline import Pipeline, running_pipeline
from tests.support.step_times import COMPARISONS, HEADING, write


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Run a collector and a bridge for jobs that go wrong by themselves."""
    with running_pipeline(tmp_path_factory.mktemp("pipeline")) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the faults did to the steps' times."""
    if COMPARISONS:
        terminalreporter.section("step times within a fault and around it")
        for line in (HEADING, *(comparison.line for comparison in COMPARISONS)):
            terminalreporter.write_line(line)
        write(COMPARISONS)
