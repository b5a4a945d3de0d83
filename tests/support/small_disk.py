"""A small file system for rings, which a test can fill or make read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.mounts import mounted
from tests.support.root import require_root


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
