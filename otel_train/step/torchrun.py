"""Name the run of a job that torchrun has started: the same over its restarts, another one at each launch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from otel_train.ring import boot_id, parent_of, start_time

_RUN_ID = "TORCHELASTIC_RUN_ID"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ERRORS, _ATTEMPT = "TORCHELASTIC_ERROR_FILE", "/attempt_"
"""Variable with a file in a folder that the agent makes for each launch, and what follows the folder."""
_SET = (b"TORCHELASTIC_RUN_ID=", b"TORCHELASTIC_RESTART_COUNT=", b"MASTER_PORT=")
"""Variables that an agent sets in the processes that it starts, and that differ from another agent's."""
MAX_RENDEZVOUS = 96
"""Characters of a rendezvous id that a run's id keeps."""


def launched_run_id(environ: Mapping[str, str], host: str) -> str:
    """Return the run's id as torchrun's launch gives it to this rank; empty where torchrun has not started it.

    A rendezvous id differs between jobs that run at once on one store, and only there: public scripts have
    `--rdzv-id=101`, Spark 4.0 gives each job 0. So it is joined with what only this launch has, the agent's process,
    unless it is a UUID (torchrun makes one for each launch on one node) or the scheduler's job, which a requeue starts
    again.

    Args:
        environ: The environment.
        host: This machine's name.
    """
    rendezvous = environ.get(_RUN_ID, "")
    if not rendezvous or _UUID.fullmatch(rendezvous):
        return rendezvous
    scheduled = _scheduled(environ, rendezvous)
    if scheduled:
        return scheduled
    pid = _agent()
    folder = environ.get(_ERRORS, "").rpartition(_ATTEMPT)[0]  # a notebook's process is the agent of all its launches
    agent = f"{host}/{boot_id()}/{pid}/{start_time(pid)}/{rendezvous}/{folder}"
    launch = hashlib.sha256(agent.encode("utf-8", "replace")).hexdigest()[:12]
    return launch if rendezvous == "none" else f"{rendezvous[:MAX_RENDEZVOUS]}-{launch}"


def _scheduled(environ: Mapping[str, str], rendezvous: str) -> str:
    """Return the id of the scheduler's job where it is the rendezvous id; empty else.

    The tasks of an array are jobs of their own, and so are a job's later steps: only its first one is what a requeue
    begins with again.
    """
    array, task = environ.get("SLURM_ARRAY_JOB_ID", ""), environ.get("SLURM_ARRAY_TASK_ID", "")
    jobs = {environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_JOBID", "")} - {""}
    of_task = f"{array}_{task}" if array and task else ""
    if rendezvous not in jobs | {array, of_task} - {""}:
        return ""
    name = of_task if of_task and rendezvous in (array, of_task) else rendezvous
    step = environ.get("SLURM_STEP_ID", "")
    return f"{name}.{step}" if step.isascii() and step.isdigit() and 0 < int(step) < 1 << 31 else name


def _agent() -> int:
    """Return the pid of torchrun's agent: of the processes above this one the nearest that it has not started itself.

    A script may stand between the two. It stays the same when the agent starts the ranks again.
    """
    started = {entry for entry in _environment(os.getpid()) if entry.startswith(_SET)}
    pid = os.getppid()
    while started and pid > 1 and started <= _environment(pid):
        parent = parent_of(pid)
        if not parent:
            break
        pid = parent
    return pid


def _environment(pid: int) -> set[bytes]:
    """Return the variables that a process was started with."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
