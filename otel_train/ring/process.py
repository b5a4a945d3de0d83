"""Tell whether the process that wrote a ring still lives, also when its pid was given to another one."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is no such process (proc(5), field 22)."""
    return _state_and_start(pid)[1]


def is_alive(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time lives and is no zombie."""
    state, found = _state_and_start(pid)
    return bool(state) and found == started and state not in "ZX"


def is_stopped(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time is stopped, by a signal or a debugger."""
    state, found = _state_and_start(pid)
    return bool(state) and found == started and state in "Tt"


def _state_and_start(pid: int) -> tuple[str, int]:
    try:
        # The name in field 2 may hold spaces and brackets; the fields behind it can't.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0
