"""Run a loader's job in its environment on two ranks, and compare each step's values with what the loops consumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from otel_train.catalogue import rows
from otel_train.diagnose.examine import examine
from otel_train.diagnose.finding import WRONG, Finding, Severity
from otel_train.read.rings import RingJob
from otel_train.ring import Kind, RingReader, ring_files
from tests.integrations.support.case_loop import Case
from tests.integrations.support.consumed_model import expected_values
from tests.integrations.support.payload import WEIGHTS
from tests.support.hung_processes import output_of
from tests.support.torchrun import ROOT, rank_environment, torchrun

JOBS = Path(__file__).parents[1] / "jobs"
RANKS = 2
SPEED = (rows.STEP_DURATION.name.split(".")[0], "telemetry.", "ranks", "rings", "delivery")
"""Beginnings of checks that are not about the mix."""


def interpreter(environment: str) -> Path:
    """Return the interpreter of an environment that `make test-integrations` has made."""
    path = ROOT / f".venv-{environment}" / "bin" / "python"
    assert path.exists(), f"{path} is missing: python -m tools.environments integrations makes it"
    return path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case has left."""

    folder: Path
    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    unit: str = "row"
    scope: str = "rank"
    later: Mapping[str, float] | None = None
    """Weights of a resumed case from where it went on, if they are others."""

    @property
    def consumed(self) -> list[list[Any]]:
        """Rows of each step, by rank."""
        return [json.loads((self.folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]

    @property
    def values(self) -> dict[int, dict[str, float]]:
        """The cluster's values by step, as the rings of rank 0 have them, with what was logged beside the steps."""
        readers = [RingReader(path) for path in ring_files(self.folder / "rings")]
        values: dict[int, dict[str, float]] = {}
        for reader in sorted(readers, key=lambda reader: reader.identity.attempt):
            if reader.identity.rank == 0:
                for record in reader.read(0, sys.maxsize)[0]:
                    if record.kind is Kind.CLUSTER:
                        values.setdefault(record.step, {}).update(record.by_key())
        return values

    def check_values(self) -> None:
        """Compare each value of each step with that computed from the rows that were consumed."""
        expected = expected_values(self.consumed, self.weights, self.unit, self.scope, self.later)
        values = self.values
        assert list(values) == list(range(1, len(expected) + 1))
        for step, row in enumerate(expected, start=1):
            recorded = {key: values[step][key] for key in row}
            assert recorded == pytest.approx(row, rel=1e-9, abs=1e-12), f"step {step}"

    def complaints(self) -> list[Finding]:
        """Return what `otel-train doctor` finds wrong with the mix."""
        return [finding for finding in self._examined() if finding.severity in WRONG]

    def notes(self) -> set[str]:
        """Return the checks of which it tells something that need not be wrong."""
        return {finding.check for finding in self._examined() if finding.severity is Severity.NOTE}

    def _examined(self) -> list[Finding]:
        findings = examine(RingJob(self.folder / "rings").history)
        return [finding for finding in findings if not finding.check.startswith(SPEED)]


def run_job(
    name: str, environment: str, cases: Iterable[Case], folder: Path, seconds: float = 280
) -> dict[str, Outcome]:
    """Run the cases of `jobs/NAME_job.py` on two ranks, and return what they have left, by the case's name.

    Args:
        name: Of the job.
        environment: Name of the file of requirements.
        cases: Those to run, in one process group.
        folder: An empty one.
        seconds: Time after which the job has failed.
    """
    names = [case.name for case in cases]
    for case in names:
        (folder / case).mkdir()
    run_program(environment, JOBS / f"{name}_job.py", folder, *names, seconds=seconds)
    return {case: Outcome(folder / case) for case in names}


def run_program(environment: str, program: Path, *arguments: object, seconds: float, **variables: str) -> None:
    """Run a program on two ranks in an environment, until both have ended well; a failure shows what they printed."""
    command = torchrun(RANKS, program, *arguments)
    command[0] = str(interpreter(environment))
    output_of(command, rank_environment(**variables), seconds)
