"""Read what launchers say of a rank: torchrun, MPI's mpirun, and Slurm's srun where a process is one of its tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from otel_train.step.slurm import is_stale, is_task


class Launcher(NamedTuple):
    """Variables of a launcher; an empty name where it has none for that."""

    rank: str
    world_size: str = ""
    local_rank: str = ""
    local_world_size: str = ""


TORCHRUN = Launcher("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_OPEN_MPI = Launcher(
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
)
_HYDRA = Launcher("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
"""MPICH's and Intel MPI's mpiexec, and any other that speaks PMI."""
_PMIX = Launcher("PMIX_RANK")
_SRUN = Launcher("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


def launchers(environ: Mapping[str, str]) -> Iterator[Launcher]:
    """Yield the launchers whose variables are about this process, the nearest to it first.

    Slurm sets SLURM_PROCID and SLURM_NTASKS also for the one process that a batch script is, so srun's count for its
    tasks only, and so do the PMI variables that it sets for them. What a job that was submitted by a rank has inherited
    from it counts for nothing.
    """
    yield TORCHRUN
    yield _OPEN_MPI
    if not is_stale(environ):
        yield _HYDRA
        yield _PMIX
    if is_task(environ):
        yield _SRUN
