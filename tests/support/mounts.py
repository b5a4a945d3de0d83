"""A file system of a test's own, for disks that are full or read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs over a directory with these options of mount(8), for the time of the block."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=True)
    try:
        yield
    finally:
        # A session's ring stays mapped until the object goes.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
