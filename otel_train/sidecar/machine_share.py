"""Leave the share of the machine that a rank's child inherits, cores, priority and memory nodes, for one beside it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

NICENESS = 10
"""Lower priority than the ranks': the processor time that they leave is enough."""
BELOW = 5
"""Lower by so much, where a rank has a low one itself."""
_LOWEST = 19
_MOST_CPUS = 8192
ISOLATED = Path("/sys/devices/system/cpu/isolated")
AUTOGROUP = Path("/proc/self/autogroup")
_TRIES = 5
"""Tries to set the priority of the session: the kernel takes one such request a tenth of a second, of all users."""
SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237}
"""The system call's number by machine; the C library has no function for it."""
SET_IO_PRIORITY = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
"""Likewise."""


def leave_ranks_share(isolated: Path = ISOLATED, autogroup: Path = AUTOGROUP) -> list[str]:
    """Take every core that the control group has, and a lower priority than the rank's, whatever the rank was given.

    A rank that is bound to a core (mpirun does that to each) would else be interrupted on it at every wake-up. Of one
    that runs in real time the sidecar would take the core for as long as it likes.

    Args:
        isolated: Names the cores between which the scheduler moves no process: it would stay next to the rank there.
        autogroup: Takes the priority of this process's session.

    Returns:
        What this process may not change, each with the reason.
    """
    refused = []
    for name, leave in (
        ("cores", partial(_take_all_cores, isolated_cores(isolated))),
        ("scheduling class", _take_patient_class),  # before the priority, by which it goes
        ("priority", _take_lower_priority),
        ("priority of the session", partial(_take_lower_session_priority, autogroup)),
        ("I/O priority", _leave_io_priority),
        ("memory nodes", _leave_memory_nodes),
    ):
        try:
            leave()
        except OSError as error:
            refused.append(f"{name} ({error.strerror})")
    return refused


def _take_all_cores(isolated: set[int]) -> None:
    """Take the cores of the control group: the kernel gives those of a longer list."""
    try:
        os.sched_setaffinity(0, (core for core in range(_MOST_CPUS) if core not in isolated))
    except OSError as error:
        if error.errno != errno.EINVAL or not isolated:
            raise
        os.sched_setaffinity(0, range(_MOST_CPUS))  # the control group has no others


def isolated_cores(path: Path) -> set[int]:
    """Return the cores that a file of the kernel's lists, such as `2-5,8`; none where it can't be read."""
    cores: set[int] = set()
    try:
        for part in filter(None, path.read_text().strip().split(",")):
            first, _, last = part.partition("-")
            cores.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return set()
    return cores


def _take_patient_class() -> None:
    """Take the class of processes that interrupt none when they wake up, or the idle one next to a rank of the lowest.

    It is the calling thread's alone, as are cores and priority; the threads that it starts have them too.
    """
    lowest = os.getpriority(os.PRIO_PROCESS, 0) == _LOWEST or os.sched_getscheduler(0) == os.SCHED_IDLE
    os.sched_setscheduler(0, os.SCHED_IDLE if lowest else os.SCHED_BATCH, os.sched_param(0))


def _take_lower_priority() -> None:
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + BELOW
    os.setpriority(os.PRIO_PROCESS, 0, min(_LOWEST, max(NICENESS, niceness)))


def _take_lower_session_priority(path: Path) -> None:
    """Lower the priority of this process's session too, where sessions share the processors.

    With the kernel's autogroups priorities count within a session only, and the sidecar has one of its own, which would
    get half of a core that it shares with a rank. A process whose session is the first one has no such group, and the
    kernel calls that invalid: its own priority counts then.
    """
    for left in reversed(range(_TRIES)):
        try:
            path.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)), encoding="ascii")
        except FileNotFoundError:  # not in every kernel
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.1)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return
        else:
            return


def _leave_io_priority() -> None:
    """Have the I/O priority go by the processes' priority, as it does by default."""
    _call(SET_IO_PRIORITY, (1, 0, 0))


def _leave_memory_nodes() -> None:
    """Have memory come from the node of the core that asks for it, as it does by default."""
    _call(SET_MEMPOLICY, (0, 0, 0))


def _call(numbers: dict[str, int], arguments: Iterable[int]) -> None:
    """Make a system call that has no function.

    Raises:
        OSError: The kernel refuses it.
    """
    number = numbers.get(platform.machine())
    if number is not None:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
