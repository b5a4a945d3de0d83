"""Tell whether the process that wrote a ring still lives, also when its pid was given to another one."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is no such process (proc(5), field 22)."""
    try:
        # The name in field 2 may hold spaces and brackets; the fields behind it can't.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def is_alive(pid: int, started: int) -> bool:
    """Tell whether the process with that pid and start time lives and is no zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) == started and fields[0] not in "ZX"
    except (OSError, IndexError, ValueError):
        return False
