"""Tell whether the process that wrote a ring still lives, also when its pid was given to another one."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is no such process (proc(5), field 22)."""
    return _state_and_start(pid)[1]


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0 when it can't be seen."""
    fields = _fields(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def is_alive(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time lives and is not a zombie."""
    state, start = _state_and_start(pid)
    return bool(state) and start == started and state not in "ZX"


def is_stopped(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time is stopped, by a signal or a debugger."""
    state, start = _state_and_start(pid)
    return bool(state) and start == started and state in "Tt"


def _state_and_start(pid: int) -> tuple[str, int]:
    fields = _fields(pid)
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("", 0)


def _fields(pid: int) -> list[str]:
    """Return the fields of proc(5) after the name, which may hold spaces and brackets; an empty list without access."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
