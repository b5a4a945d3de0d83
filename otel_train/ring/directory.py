"""Choose and make directories for rings: the user's own, private, and never through another user's link."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from otel_train.exceptions import RingError
from otel_train.ring.file_format import SUFFIX

NEW_SUFFIX = ".new"
MEMORY = Path("/dev/shm")  # noqa: S108  # each directory in it is checked for its owner
_TRIES = 8
"""Names of a user's directory that are tried: another user may have taken some of them."""


def default_base() -> Path:
    """Return the directory in memory that holds a directory for each of this user's runs; make it where it is missing.

    Where its name is taken, by another user or by a link, the next name is tried. All ranks of a machine get the same
    one. Without shared memory it is in the directory for temporary files.
    """
    for path in _candidates():
        with contextlib.suppress(OSError):
            _make(path)
            if _is_own(path):
                path.chmod(0o700)
                return path
    return MEMORY / _name()  # it is refused, with the reason, when it is used


def default_bases() -> list[Path]:
    """Return the directories of this user that `default_base` may have returned, as far as they exist."""
    return [path for path in dict.fromkeys(_candidates()) if _is_own(path)]


def _candidates() -> Iterator[Path]:
    parents = [MEMORY]
    with contextlib.suppress(OSError):  # no directory is writable
        parents.append(Path(tempfile.gettempdir()))
    for parent in parents:
        yield from (parent / f"{_name()}{(number and f'-{number}') or ''}" for number in range(_TRIES))


def _name() -> str:
    return f"otel_train-{os.getuid()}"


def _is_own(path: Path) -> bool:
    """Tell whether a path is a directory of this user, not a link to one."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _make(directory: Path) -> None:
    """Make a directory and its missing parents with the mode 0700, whatever the umask is."""
    missing = [directory]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o700)


def prepare_directory(directory: Path) -> None:
    """Make the directory for rings, readable by its owner only.

    An existing one gets that mode when it holds only our files; one with other files keeps its mode, since others may
    need it, but they must not be able to write in it.

    Raises:
        RingError: It can't be made, belongs to somebody else, or others may write in it.
    """
    try:
        _make(directory)
        status = directory.stat()
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 and status.st_uid == os.getuid() and all(map(is_ours, directory.iterdir())):
            mode = 0o700
            directory.chmod(mode)
    except OSError as error:
        raise RingError(
            f"ring directory {directory} can't be made: {error.strerror}; set OTEL_TRAIN_RING_DIR"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RingError(f"ring directory {directory} belongs to uid {status.st_uid}; set OTEL_TRAIN_RING_DIR")
    if mode & 0o022:
        raise RingError(
            f"ring directory {directory} holds other files and may be written by others (mode {mode:o}); "
            "set OTEL_TRAIN_RING_DIR to a directory of its own"
        )


def is_ours(path: Path) -> bool:
    """Tell whether a directory entry is a ring, an unfinished one, or one of the sidecar's files."""
    return path.suffix in (SUFFIX, NEW_SUFFIX) or path.name.startswith("sidecar.")


def ring_files(directory: Path) -> list[Path]:
    """Return the ring files in a directory, by name."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208  # `top` asks for hundreds each second
        return [directory / name for name in names if name.endswith(SUFFIX) and name != SUFFIX]
    except FileNotFoundError:
        return []
