"""Make of a path that a user gives one that means the same file from now on."""

from __future__ import annotations

import os
from pathlib import Path


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that holds after a change of the working directory: `~` expanded, from the root, links resolved.

    Without a home directory `~` is the name of a file, as in a shell.
    """
    return expanded(path).resolve()


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` expanded; where there is no such home it is the name of a file, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises without a home
