"""One cluster for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_cluster import SlurmCluster, running_slurm
from tests.support.slurm_outcome import MEASURED


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """Run the cluster."""
    with running_slurm() as cluster:
        yield cluster


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was recorded and what arrived."""
    if MEASURED:
        terminalreporter.section("deaths: recorded, arrived, twice, lost")
        for line in MEASURED:
            terminalreporter.write_line(line)
