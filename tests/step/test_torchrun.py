"""The run's id by what torchrun and the scheduler say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import otel_train
from otel_train.step.torchrun import launch_of

UUID = "53a3445f-bddf-4efd-b7bb-6a9d7307310e"
PRINT = "import os; from otel_train.step.torchrun import launch_of; print(*launch_of(os.environ, 'here'))"


def run_id(rendezvous: str) -> str:
    """Return what a rank of torchrun's names its run."""
    launch = launch_of({"TORCHELASTIC_RUN_ID": rendezvous}, "here")
    return "" if launch is None else launch.run_id


def test_unique_ids_are_kept() -> None:
    """A UUID, which torchrun makes for each launch, is the run's id as it is; without torchrun there is none."""
    assert [run_id(UUID), run_id("")] == [UUID, ""]


def test_other_ids_add_agent() -> None:
    """Another id is joined with the agent's process, also with a script between; another agent gives another one."""

    def name_in_a_process(rendezvous: str, *above: str) -> str:
        """Return what a process with this one as its agent names its run."""
        environment = {**os.environ, "TORCHELASTIC_RUN_ID": rendezvous, "MASTER_PORT": "1"}
        return subprocess.check_output([*above, sys.executable, "-c", PRINT], env=environment, text=True).strip()

    first = name_in_a_process("101")
    assert name_in_a_process("101", "sh", "-c", '"$@"; exit $?', "sh") == first
    assert run_id("101") != first.split()[0]


@pytest.mark.parametrize(("rendezvous", "begin"), [("101", "101-"), ("none", ""), ("x" * 300, "x" * 96 + "-")])
def test_name_begins_with_id(rendezvous: str, begin: str) -> None:
    """A made-up name begins with the rendezvous id, with as much of it as a run's id takes."""
    name = run_id(rendezvous)
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
