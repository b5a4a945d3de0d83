"""Ranks as the variables of launchers give them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from otel_train.step.environment import Environment, launched_world_size
from tests.support import launcher_environments as recorded
from tests.support.environment import clean_environment


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1, None, None, "WORLD_SIZE")),
        (recorded.TORCHRUN, (5, 8, 1, 4, "WORLD_SIZE")),
        (recorded.OPEN_MPI, (1, 2, 1, 2, "OMPI_COMM_WORLD_SIZE")),
        (recorded.INTEL_MPI, (1, 2, 1, 2, "PMI_SIZE")),
        (recorded.TASK, (1, 2, 1, None, "SLURM_STEP_NUM_TASKS")),
        (recorded.PMI2, (1, 2, 1, None, "PMI_SIZE")),
        ({**recorded.TASK, **recorded.TORCHRUN}, (5, 8, 1, 4, "WORLD_SIZE")),
        (
            {**recorded.PMI2, "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"},
            (1, 4, 1, None, "SLURM_STEP_NUM_TASKS"),
        ),
        ({**recorded.BATCH, **recorded.INTEL_MPI}, (1, 2, 1, 2, "PMI_SIZE")),
        ({**recorded.PTY_PMI2, **recorded.INTEL_MPI}, (1, 2, 1, 2, "PMI_SIZE")),
        ({**recorded.CHAINED, **recorded.INTEL_MPI}, (1, 2, 1, 2, "PMI_SIZE")),
    ],
    ids=[
        "none",
        "torchrun",
        "Open MPI",
        "Intel MPI",
        "srun",
        "PMI2",
        "torchrun in srun",
        "step in PMI2",
        "MPI in batch",
        "MPI in pty",
        "MPI in chain",
    ],
)
def test_launcher_gives_ranks(environ: Mapping[str, str], expected: tuple[object, ...]) -> None:
    """Rank, size, local rank and size are those of the nearest launcher, and the size is told with its variable."""
    read = Environment.read(environ)
    variable, _ = launched_world_size(environ)
    assert (read.rank, read.world_size, read.local_rank, read.local_world_size, variable) == expected


@pytest.mark.parametrize(
    "environ",
    [
        recorded.SALLOC,
        recorded.BATCH,
        recorded.PTY,
        recorded.PTY_PMI2,
        recorded.INTERACTIVE,
        recorded.CHAINED,
        {"JOB_COMPLETION_INDEX": "3"},
    ],
    ids=["salloc", "batch", "pty", "pty PMI2", "interactive", "chained", "indexed pod"],
)
def test_lone_process_is_no_rank(environ: Mapping[str, str]) -> None:
    """One process in a job of several tasks is alone, whatever number Slurm gives to it; a pod's index is no rank."""
    read = Environment.read(environ)
    assert (read.rank, read.world_size, read.local_rank) == (0, 1, None)


@pytest.mark.parametrize(("daemon", "size"), [("43.0", 2), ("43.batch", 1), ("43.interactive", 1), ("44.extern", 1)])
def test_daemon_overrides_variables(daemon: str, size: int) -> None:
    """The name of the Slurm daemon above a process tells whether its step is inherited from another job."""
    program = "from otel_train.step.environment import launched_world_size as size; print(size()[1])"
    shell = [f"slurmstepd: [{daemon}]", "-c", '"$@"; exit $?', "sh", "env", sys.executable, "-c", program]
    environ = clean_environment(**recorded.TASK)
    assert int(subprocess.check_output(shell, executable="/bin/sh", env=environ, text=True)) == size
