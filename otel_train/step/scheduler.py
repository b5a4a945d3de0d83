"""Name a run after the scheduler's job that it is: Slurm's, or Kubernetes' as the downward API gives it.

The name is the same when the scheduler starts the job again, and another one for each further launch in the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otel_train.descriptors import open_private
from otel_train.ring import default_base, start_time
from otel_train.step.slurm import job_id, job_name, step_of

_SET = "k8s.jobset.uid"
_UIDS = (_SET, "k8s.job.uid", "k8s.pod.uid")
"""Attributes that name a Kubernetes job, the largest first; a pod's is the same after its container starts again."""
_JOB = "k8s.job.name"
"""Attribute with a job's name: in a set it is the same after the set began anew, and the job's uid another one."""
_LONGEST_UID = 64
"""Characters of what can be an id of Kubernetes' (it has 36), or a job's name (63): a longer text names no run."""
_BATCH = -1
"""Number of the step of a batch script or a shell, which comes before srun's."""
_LAUNCHES = "launches"
_KEPT = 4096
"""Launches that are remembered on a machine."""


class ScheduledJob(NamedTuple):
    """The scheduler's job that a process is part of."""

    name: str
    """Name of the job, the same after it was started again."""
    part: tuple[int, int, int, str] = (0, 0, 0, "")
    """Slurm's job, step and task, or the pod's index and its job's name in a JobSet: the first part names the run."""
    suffix: str = ""
    """End of the name where the job's first part takes no part in the run."""
    start: str = ""
    """Number of the job's start: in each the launches are counted from one."""


def scheduled_job(environ: Mapping[str, str], attributes: Mapping[str, str]) -> ScheduledJob | None:
    """Return the scheduler's job; None outside of one.

    Args:
        environ: The environment.
        attributes: The resource's, where Kubernetes' ids are.
    """
    if job_id(environ):
        return _slurm_job(environ)
    ids = {name: attributes.get(name, "") for name in (*_UIDS, _JOB)}
    valid = {name: text for name, text in ids.items() if 0 < len(text) <= _LONGEST_UID and text.isprintable()}
    level = next((name for name in _UIDS if name in valid), "")
    if not level:
        return None
    # The jobs of a set may be one training or several, each with pods from index 0 on.
    job = valid.get(_JOB, "") if level == _SET else ""
    index = environ.get("JOB_COMPLETION_INDEX", "")
    pod = int(index) if index.isascii() and index.isdigit() else 0
    suffix = (f"-{job}" if job else "") + (f"-i{pod}" if pod else "")
    return ScheduledJob(valid[level], (0, 0, pod, job), suffix, _container())


def _slurm_job(environ: Mapping[str, str]) -> ScheduledJob:
    step = step_of(environ)
    if step.number is not None:
        suffix = (f"-s{step.number}" if step.number else "") + (f"-t{step.task}" if step.task else "")
    else:  # on several nodes srun's first step may be elsewhere, where nobody sees what the batch script launches
        suffix = "-b" if environ.get("SLURM_JOB_NUM_NODES", "1") != "1" else ""
    part = int(job_id(environ)), _BATCH if step.number is None else step.number, step.task, ""
    return ScheduledJob(job_name(environ), part, suffix, environ.get("SLURM_RESTART_COUNT", "") or "0")


def first_part(jobs: Sequence[ScheduledJob | None]) -> int | None:
    """Return which process names the run: of those of the first part the first; None where no scheduler runs them.

    Two runs with the same first part are counted on the same machine, so that no two get one name.
    """
    parts = [(job.part, index) for index, job in enumerate(jobs) if job is not None]
    return min(parts)[1] if parts else None


def run_name(job: ScheduledJob, launch: str, extra: str = "") -> str:
    """Return the name of a run, another one for each launch in one start of a job.

    Args:
        job: The job of the process that names the run.
        launch: What only this launch has, on this machine.
        extra: What else is to be in the name.
    """
    name = f"{job.name}{job.suffix}{extra}"
    try:
        number = _count_launch(f"{name} {job.start}", launch or uuid.uuid4().hex)
    except OSError:  # no directory to remember it in: the job must not become one run with another's steps
        return f"{name}-{uuid.uuid4().hex[:12]}"
    return name if number == 1 else f"{name}-l{number}"


def _count_launch(job: str, launch: str) -> int:
    """Return the number of a launch among those of a job on this machine, from 1; the same when it is asked again."""
    own = hashlib.sha256(launch.encode("utf-8", "replace")).hexdigest()[:16]
    descriptor = open_private(default_base() / _LAUNCHES, os.O_RDWR | os.O_CREAT)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        lines = text.splitlines()
        launches = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == job]
        if own in launches:
            return launches.index(own) + 1
        lines.append(f"{job} {own}")
        if len(lines) > 2 * _KEPT:
            file.seek(0)
            file.truncate()
            lines = lines[-_KEPT:]
        else:
            torn = text[-1:] not in ("", "\n")  # a disk was full, or a machine went down
            lines = [""] * torn + lines[-1:]
        file.seek(0, os.SEEK_END)
        file.writelines(f"{line}\n" for line in lines)
        return len(launches) + 1


def _container() -> str:
    """Return what tells one start of this container from another: its file system, and its first process's start."""
    root = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        root = next((line for line in lines if line.split(" ")[4:5] == ["/"]), "")
    return hashlib.sha256(f"{root}/{start_time(1)}".encode()).hexdigest()[:12]
