"""File systems of a test's own, for disks that are full or read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def require_root(what: str) -> None:
    """See that this process may do what a fault test does to the machine.

    Raises:
        PermissionError: It may not; the message says what to do.
    """
    if os.geteuid() != 0:
        raise PermissionError(f"the fault tests {what}, which needs root: run `make test-faults` as root")


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


class SmallDisk:
    """A mounted file system; `folder` is where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        free = os.statvfs(self.folder)
        with self._filler.open("ab") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        assert os.statvfs(self.folder).f_bavail == 0

    def clear(self) -> None:
        """Give the space back."""
        self._filler.unlink()

    def forbid_writing(self) -> None:
        """Make it read-only."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a file system in memory of that size as long as the block."""
    require_root("mount file systems")
    folder.mkdir(mode=0o700)
    with mounted(folder, f"size={size},mode=700"):
        yield SmallDisk(folder)
