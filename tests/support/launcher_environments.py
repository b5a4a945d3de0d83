"""Variables as launchers have set them: printed by processes of Slurm 22.05.8, Open MPI 4.1.4 and Intel MPI 2021."""

from __future__ import annotations

_JOB = {
    "SLURM_CLUSTER_NAME": "pilot",
    "SLURM_JOB_ID": "43",
    "SLURM_JOBID": "43",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_JOB_PARTITION": "batch",
    "SLURM_JOB_USER": "someone",
}
_STEP = {
    "SLURM_STEPID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_TASKS_PER_NODE": "2",
}
_NODE = {"SLURMD_NODENAME": "node7", "SLURM_NODEID": "0"}

SALLOC = {**_JOB, "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}
"""`salloc -n4 bash`: a shell on the login node."""
BATCH = {**_JOB, **_NODE, "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
"""`sbatch -n8`, the batch script."""
TASK = {**_JOB, **_NODE, **_STEP, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
"""`srun -n2`, the second task."""
PTY = {**TASK, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_PTY_PORT": "38221"}
"""`srun -n2 --pty bash`."""
INTERACTIVE = {
    **PTY,
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_TASKS": "1",
}
"""`salloc -n4` with `LaunchParameters=use_interactive_step`."""
PMI2 = {**TASK, "PMI_JOBID": "43.0", "PMI_RANK": "1", "PMI_SIZE": "2", "SLURM_MPI_TYPE": "pmi2"}
"""`srun -n2 --mpi=pmi2`, the second task."""
PTY_PMI2 = {**PTY, "PMI_JOBID": "43.0", "PMI_RANK": "0", "PMI_SIZE": "2", "SLURM_MPI_TYPE": "pmi2"}
"""`srun -n2 --mpi=pmi2 --pty bash`."""
CHAINED = {
    **PMI2,
    **BATCH,
    "SLURM_JOB_ID": "15",
    "SLURM_JOBID": "15",
    "SLURM_NTASKS": "1",
    "SLURM_ARRAY_JOB_ID": "14",
    "SLURM_ARRAY_TASK_ID": "5",
}
"""The batch script of `sbatch -n1`, called in the second task of `srun -n2 --mpi=pmi2` in an array's task."""
INTEL_MPI = {"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_RANK": "1", "PMI_SIZE": "2"}
"""`mpiexec -n 2`, the second process."""
OPEN_MPI = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "PMIX_RANK": "1",
}
"""`mpirun -n 2`, the second process."""
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
"""A rank of `torchrun --nproc-per-node 4 --nnodes 2`."""
