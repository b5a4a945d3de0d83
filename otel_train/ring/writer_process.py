"""Tell whether the process that wrote a ring still lives, also when its pid was given to another one."""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


class PidSpace(NamedTuple):
    """Where a process id means something: on one machine, until it is started again, in one namespace."""

    boot: bytes = bytes(16)
    """Id of the boot; zeros where it is not known."""
    namespace: int = 0
    """Inode of the pid namespace; 0 where it is not known."""

    def may_be(self, other: PidSpace) -> bool:
        """Tell whether nothing that is known of both speaks against it that they are the same."""
        same_boot = self.boot == other.boot or bytes(16) in (self.boot, other.boot)
        return same_boot and (self.namespace == other.namespace or 0 in (self.namespace, other.namespace))


def boot_id() -> str:
    """Return the id of this boot of this machine; empty where the kernel has none."""
    try:
        return _BOOT_ID.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def pid_space() -> PidSpace:
    """Return where this process's id means something."""
    return _pid_space_of(os.getpid())


@lru_cache(1)
def _pid_space_of(_pid: int) -> PidSpace:
    """Return that of this process; a child of it may be in another namespace."""
    boot, namespace = b"", 0
    with contextlib.suppress(ValueError):
        boot = bytes.fromhex(boot_id().replace("-", ""))
    with contextlib.suppress(OSError):
        namespace = _PID_NAMESPACE.stat().st_ino
    return PidSpace(boot if len(boot) == 16 else bytes(16), namespace)


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is no such process (proc(5), field 22)."""
    return _state_and_start(pid)[1]


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0 when it can't be seen."""
    fields = _fields(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def is_alive(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time lives and is not a zombie."""
    return lives_and_stopped(pid, started)[0]


def lives_and_stopped(pid: int, started: int) -> tuple[bool, bool]:
    """Tell whether the process with that pid and start time lives, and whether a signal or a debugger stopped it."""
    state, start = _state_and_start(pid)
    same = bool(state) and start == started
    return same and state not in "ZX", same and state in "Tt"


def _state_and_start(pid: int) -> tuple[str, int]:
    fields = _fields(pid)
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("", 0)


def _fields(pid: int) -> list[str]:
    """Return the fields of proc(5) after the name, which may hold spaces and brackets; an empty list without access.

    Those after the start time are one.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123  # `top` asks of hundreds each second
            return file.read().rpartition(b")")[2].decode().split(None, 20)
    except OSError:
        return []
