"""Name the run of a job that torchrun has started: the same over its restarts, another one at each launch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from otel_train.ring import boot_id, parent_of, start_time

_RUN_ID = "TORCHELASTIC_RUN_ID"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ERRORS, _ATTEMPT = "TORCHELASTIC_ERROR_FILE", "/attempt_"
"""Variable with a file in a folder that the agent makes for each launch, and what follows the folder."""
_SET = (b"TORCHELASTIC_RUN_ID=", b"TORCHELASTIC_RESTART_COUNT=", b"MASTER_PORT=")
"""Variables that an agent sets in the processes that it starts, and that differ from another agent's."""
MAX_RENDEZVOUS = 96
"""Characters of a rendezvous id that a run's id keeps."""


class Launch(NamedTuple):
    """Launch of torchrun's that has started a rank."""

    run_id: str
    """The run's id as the launch gives it."""
    agent: str
    """Hash of the agent's process on this machine: the same after it has started the ranks again."""


def launch_of(environ: Mapping[str, str], host: str) -> Launch | None:
    """Return torchrun's launch that has started this rank; None where torchrun has not started it.

    A rendezvous id differs between jobs that run at once on one store, and only there: public scripts have
    `--rdzv-id=101`, Spark 4.0 gives each job 0. So it is joined with what only this launch has, the agent's process,
    unless it is a UUID: torchrun makes one for each launch on one node.

    Args:
        environ: The environment.
        host: This machine's name.
    """
    rendezvous = environ.get(_RUN_ID, "")
    if not rendezvous:
        return None
    pid = _agent()
    folder = environ.get(_ERRORS, "").rpartition(_ATTEMPT)[0]  # a notebook's process is the agent of all its launches
    process = f"{host}/{boot_id()}/{pid}/{start_time(pid)}/{rendezvous}/{folder}"
    agent = hashlib.sha256(process.encode("utf-8", "replace")).hexdigest()[:12]
    if _UUID.fullmatch(rendezvous):
        return Launch(rendezvous, agent)
    return Launch(agent if rendezvous == "none" else f"{rendezvous[:MAX_RENDEZVOUS]}-{agent}", agent)


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
