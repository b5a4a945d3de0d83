"""Find the rings in what a user names, and whose they are: only their owner can be trusted with what is beside them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from otel_train.paths import expanded
from otel_train.ring import ring_files
from otel_train.send.figures import DirectoryFigures, State

ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Unusable(Exception):  # noqa: N818  # it is no error of this program
    """A path that nothing can be sent from, with the figures that say why."""

    def __init__(self, path: Path, state: State, reason: str) -> None:
        super().__init__(reason)
        self.figures = DirectoryFigures(directory=str(path), state=state, reason=reason)


def by_owner(paths: Iterable[Path]) -> tuple[dict[int, list[tuple[Path, bool]]], list[DirectoryFigures]]:
    """Return by user id the paths with that owner, and the figures of those that nothing can be sent from.

    A link is its owner's own: who follows it must be that user. For root, what other users have in a directory of
    root's is theirs; for anybody else all paths are this process's user's, who can do nothing with those of others.

    Args:
        paths: Directories of rings, or directories that hold such ones.

    Returns:
        By owner the paths and whether each was named; the figures.
    """
    owned: defaultdict[int, list[tuple[Path, bool]]] = defaultdict(list)
    unusable = []
    for path in dict.fromkeys(Path(os.path.abspath(expanded(path))) for path in paths):  # noqa: PTH100  # links stay
        try:
            if os.geteuid() != ROOT:
                owned[os.geteuid()].append((path, True))
                continue
            owner = _owner(path)
            others = list(_of_others(path)) if owner == ROOT else []
            owned[owner].append((path, not others))
            for inside, other in others:
                owned[other].append((inside, False))
        except Unusable as error:
            unusable.append(error.figures)
    return dict(owned), unusable


def _owner(path: Path) -> int:
    """Return the owner of a directory, or of a link that is not root's."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid == ROOT:
            status = path.stat()
    except OSError as error:
        raise _missing(path, error) from None
    return status.st_uid


def _of_others(base: Path) -> Iterator[tuple[Path, int]]:
    """Yield the directories of other users in one of root's, and their owners."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                owner = entry.stat(follow_symlinks=False).st_uid
                if owner != ROOT:
                    yield Path(entry.path), owner


def ring_directories(path: Path, *, named: bool) -> Iterator[tuple[Path, bool]]:
    """Yield the directories of this process's user with rings at a path: itself, or those in it.

    Args:
        path: The path, absolute.
        named: Whether the user has named it: then it must hold something.

    Yields:
        Each with rings, and whether it is the path that was named.

    Raises:
        Unusable: It is missing, belongs to somebody else, is open to others, or holds no rings.
    """
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise Unusable(path, State.MISSING, "it is not a directory; give a job's OTEL_TRAIN_RING_DIR")
        rings = ring_files(path)
        inside = sorted(entry for entry in path.iterdir() if not entry.is_symlink() and entry.is_dir())
    except PermissionError:
        raise Unusable(path, State.LEFT, _not_own(path)) from None
    except OSError as error:
        raise _missing(path, error) from None
    own = status.st_uid == os.geteuid()
    if rings and own and not status.st_mode & _OTHERS_WRITE and _is_safe(path):
        yield path, named
        return
    sent = 0
    for directory in inside:
        with contextlib.suppress(OSError):
            below = directory.lstat()
            closed = not below.st_mode & _OTHERS_WRITE and _is_safe(directory)
            if below.st_uid == os.geteuid() and closed and ring_files(directory):
                sent += 1
                yield directory, False
    if not sent and named:
        if rings and not own:
            raise Unusable(path, State.LEFT, _not_own(path))
        if any(ring.lstat().st_uid == os.geteuid() for ring in rings):  # others' were put there by those who may write
            raise Unusable(path, State.LEFT, f"others may write in it or above it; `chmod go-w {path}`, or move it")
        raise Unusable(path, State.EMPTY, "it holds no rings")


def _is_safe(path: Path) -> bool:
    """Tell whether nobody can exchange a directory for another one.

    That is asked for root only: whatever else a process of an ordinary user opens, it does so with that user's rights.
    """
    if os.geteuid() != ROOT:
        return True
    for parent in path.resolve().parents:
        status = parent.stat()
        if status.st_uid != ROOT or (status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX):
            return False
    return True


def _not_own(path: Path) -> str:
    try:
        owner = f"belongs to uid {path.stat().st_uid}"
    except OSError:
        owner = "is in another user's directory"
    return f"it {owner}: run the command as that user, or as root"


def _missing(path: Path, error: OSError) -> Unusable:
    text = error.strerror or str(error)
    if isinstance(error, PermissionError):  # root has no rights on some network file systems
        return Unusable(path, State.LEFT, f"it can't be looked at ({text}); run the command as the user whose it is")
    return Unusable(path, State.MISSING, f"it can't be looked at ({text}); give a job's OTEL_TRAIN_RING_DIR")
