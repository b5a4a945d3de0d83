"""The run's id by what torchrun and the scheduler say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import otel_train
from otel_train.step.torchrun import launched_run_id

UUID = "53a3445f-bddf-4efd-b7bb-6a9d7307310e"
ARRAY = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "43"}
PRINT = "import os; from otel_train.step.torchrun import launched_run_id as name; print(name(os.environ, 'here'))"


@pytest.mark.parametrize(
    ("rendezvous", "environ", "expected"),
    [
        ("", {}, ""),
        (UUID, {}, UUID),
        ("43", {"SLURM_JOB_ID": "43"}, "43"),
        ("43", {"SLURM_JOB_ID": "43", "SLURM_STEP_ID": "0"}, "43"),
        ("43", {"SLURM_JOB_ID": "43", "SLURM_STEP_ID": "2"}, "43.2"),
        ("40", ARRAY, "40_3"),
        ("40_3", ARRAY, "40_3"),
        ("43", ARRAY, "43"),
    ],
)
def test_unique_ids_are_kept(rendezvous: str, environ: dict[str, str], expected: str) -> None:
    """A UUID, and the scheduler's job, which a requeue goes on with, are the run's id as they are."""
    assert launched_run_id({"TORCHELASTIC_RUN_ID": rendezvous, **environ}, "here") == expected


def test_other_ids_add_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another id is joined with the agent's process, also with a script between; another agent gives another one."""

    def name_in_a_process(rendezvous: str, *above: str) -> str:
        """Return what a process with this one as its agent names its run."""
        environment = {**os.environ, "TORCHELASTIC_RUN_ID": rendezvous, "MASTER_PORT": "1"}
        return subprocess.check_output([*above, sys.executable, "-c", PRINT], env=environment, text=True).strip()

    first = name_in_a_process("101")
    assert name_in_a_process("101", "sh", "-c", '"$@"; exit $?', "sh") == first
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "101")
    assert launched_run_id(os.environ, "here") != first


@pytest.mark.parametrize(("rendezvous", "begin"), [("101", "101-"), ("none", ""), ("x" * 300, "x" * 96 + "-")])
def test_name_begins_with_id(rendezvous: str, begin: str) -> None:
    """A made-up name begins with the rendezvous id, with as much of it as a run's id takes."""
    name = launched_run_id({"TORCHELASTIC_RUN_ID": rendezvous}, "here")
    assert name.startswith(begin)
    assert len(name) == len(begin) + 12


def test_ungrouped_processes_are_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of one torchrun launch without a process group are runs of their own."""
    run_ids = []
    for name, text in {"TORCHELASTIC_RUN_ID": UUID, "WORLD_SIZE": "1", "OTEL_TRAIN_SIDECAR": "external"}.items():
        monkeypatch.setenv(name, text)
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        with otel_train.init(ring_dir=tmp_path, close_timeout=0.0) as telemetry:
            telemetry.step(1)
            assert telemetry.identity is not None
            run_ids.append(telemetry.identity.run_id)
    assert run_ids == [UUID, f"{UUID}-3"]
