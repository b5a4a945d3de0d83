"""A case that SIGTERM ends: in a fork of the rank, so that the job goes on, with no second import of torch."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

LAST = 6
"""The step that has ended when the signal comes, within the next one."""


def call_in_fork(run: Callable[[], object], folder: Path) -> None:
    """Call a function in a fork of this rank, which has no process group yet, until SIGTERM has ended the fork.

    The fork has a process group of its own.
    """
    pid = os.fork()
    if not pid:
        try:
            meeting, rank = f"file://{folder}/meeting", int(os.environ["RANK"])
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
            run()
        except BaseException:  # noqa: BLE001  # the fork must not go on as the rank does
            traceback.print_exc()
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == -signal.SIGTERM, f"the fork ended with {code}"


def terminate(folder: Path) -> None:
    """Get SIGTERM, as the other ranks do at the same time: files tell that all have come here, not a collective."""
    (folder / f"terminates{dist.get_rank()}").touch()
    while len(list(folder.glob("terminates*"))) < dist.get_world_size():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)  # the session ends first, in another thread
