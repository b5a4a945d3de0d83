"""Count open files."""

from __future__ import annotations

from pathlib import Path


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
