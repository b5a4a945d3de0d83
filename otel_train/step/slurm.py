"""Read what Slurm says of a process: its job, the step and the task that it is in, and where that is.

A job that is submitted from a step, as one that submits its own continuation is, inherits that step's variables: its
batch script sees the SLURM_STEP_ID, SLURM_ARRAY_TASK_ID and PMI_RANK of a job that has ended. So the step is read from
the name of the `slurmstepd` above the process where that can be seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from otel_train.ring import parent_of

_STEPD = re.compile(rb"slurmstepd: \[[^\].]*\.([^\]]+)\]")
_SPECIAL = 1 << 31
"""Number from which on a step is none of srun's: the batch script, an interactive shell, the job's own processes."""
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_ATTRIBUTES = {
    "slurm.cluster.name": "SLURM_CLUSTER_NAME",
    "slurm.job.id": "SLURM_JOB_ID",
    "slurm.job.partition": "SLURM_JOB_PARTITION",
    "slurm.job.restarts": "SLURM_RESTART_COUNT",
    "slurm.node.name": "SLURMD_NODENAME",
}
"""Variables that become attributes of the resource; none of them is about a person."""


class SlurmStep(NamedTuple):
    """Step of a Slurm job that a process is in."""

    number: int | None
    """srun's; None in a batch script or a shell."""
    task: int = 0
    """Task of the step that the process is, or is below."""


def job_id(environ: Mapping[str, str]) -> str:
    """Return the id of the Slurm job that the process is in; empty outside of one."""
    text = environ.get("SLURM_JOB_ID", "") or environ.get("SLURM_JOBID", "")
    return text if _number(text) is not None else ""


def job_name(environ: Mapping[str, str]) -> str:
    """Return a name for the job that no other has, on this cluster or another: the ids of two clusters are often equal.

    The job's id is the same after a requeue, and each task of an array has its own. The array's is told as well, since
    people know the task by it, but it alone would not do: see above.

    Examples:
        >>> from otel_train.step.slurm import job_name
        >>> job_name({"SLURM_JOB_ID": "43", "SLURM_CLUSTER_NAME": "pilot"})
        'pilot-43'
        >>> job_name({"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"})
        'slurm-43-a40_3'
    """
    cluster = _OTHER.sub("_", environ.get("SLURM_CLUSTER_NAME", ""))[:24] or "slurm"
    array, task = (_number(environ.get(f"SLURM_ARRAY_{part}_ID", "")) for part in ("JOB", "TASK"))
    return f"{cluster}-{job_id(environ)}" + (f"-a{array}_{task}" if array is not None and task is not None else "")


def step_of(environ: Mapping[str, str]) -> SlurmStep:
    """Return the step that the process is in."""
    number, task = _number(environ.get("SLURM_STEP_ID", "")), _number(environ.get("SLURM_PROCID", ""))
    daemon = _step_above() if number is not None else ""
    if daemon:
        number = _number(daemon)
    elif environ.get("SLURM_STEP_NUM_TASKS", "") != environ.get("SLURM_NTASKS", ""):
        number = None  # inherited: srun sets both to the same
    if number is None or task is None or number >= _SPECIAL:
        return SlurmStep(None)
    return SlurmStep(number, task)


def is_task(environ: Mapping[str, str]) -> bool:
    """Tell whether the process is one of a step's tasks, or started by one: as many run as SLURM_STEP_NUM_TASKS says.

    Below `srun --pty` it is not: people ask for a shell with several tasks to have as many cores.
    """
    return bool(job_id(environ)) and not environ.get("SLURM_PTY_PORT") and step_of(environ).number is not None


def is_stale(environ: Mapping[str, str]) -> bool:
    """Tell whether the PMI variables that srun has set are not about this process.

    They are another job's, which has submitted this one, another step's, which has started this one's srun, or those of
    the one shell that `srun --pty` starts with several tasks.
    """
    job, _, step = environ.get("PMI_JOBID", "").partition(".")
    if not job or "MPI_LOCALRANKID" in environ or not job_id(environ):
        return False
    return job != job_id(environ) or not is_task(environ) or step not in ("", str(step_of(environ).number))


def slurm_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the resource says of the job; OpenTelemetry has no names for it yet."""
    if not job_id(environ):
        return {}
    return {key: environ[name] for key, name in _ATTRIBUTES.items() if environ.get(name)}


def _step_above() -> str:
    """Return the step of the nearest Slurm daemon above this process; empty where none can be seen."""
    pid = os.getppid()
    while pid > 1:
        try:
            daemon = _STEPD.match(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            return ""
        if daemon is not None:
            return daemon[1].decode(errors="replace")
        pid = parent_of(pid)
    return ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
