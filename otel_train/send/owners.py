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
            real, owner = _resolved(path)
            others = list(_of_others(real)) if owner == ROOT else []
            owned[owner].append((real, not others))
            for inside, other in others:
                owned[other].append((inside, False))
        except Unusable as error:
            unusable.append(error.figures)
    return dict(owned), unusable


def _resolved(path: Path) -> tuple[Path, int]:
    """Return a directory without the links on the way to it, and its owner; of a link that is not root's itself.

    What is found out about a path with links holds for no later use of it: their owners can exchange them.
    """
    try:
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) or status.st_uid == ROOT:
            path = Path(os.path.realpath(path, strict=True))
            status = path.lstat()
    except OSError as error:
        raise _missing(path, error) from None
    return path, status.st_uid


def _of_others(base: Path) -> Iterator[tuple[Path, int]]:
    """Yield the directories of other users in one of root's, and their owners.

    What can't be looked at is left out: `ring_directories` says it of the same base.
    """
    entries: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError), os.scandir(base) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                owner = entry.stat(follow_symlinks=False).st_uid
                if owner != ROOT:
                    yield Path(entry.path), owner


def ring_directories(path: Path, *, named: bool) -> tuple[list[tuple[Path, bool]], list[DirectoryFigures]]:
    """Return the directories of this process's user with rings at a path: itself, or those in it.

    Args:
        path: The path, absolute.
        named: Whether the user has named it: then it must hold something.

    Returns:
        Each with rings, and whether it is the path that was named; the figures of those in it that may hold rings, and
        that nothing can be sent from.

    Raises:
        Unusable: It is missing, belongs to somebody else, is open to others, or holds no rings.
    """
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise Unusable(path, State.MISSING, "it is not a directory; give a job's OTEL_TRAIN_RING_DIR")
        rings = ring_files(path)
        inside = sorted(path.iterdir())
    except PermissionError:
        raise Unusable(path, State.LEFT, _not_own(path)) from None
    except OSError as error:
        raise _missing(path, error) from None
    own = status.st_uid == os.geteuid()
    if rings and own and not status.st_mode & _OTHERS_WRITE and _is_safe(path):
        return [(path, named)], []
    usable, left = list[tuple[Path, bool]](), list[DirectoryFigures]()
    for directory in inside:
        try:
            if _has_own_rings(directory):
                usable.append((directory, False))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went meanwhile
        except Unusable as error:
            left.append(error.figures)
        except OSError as error:
            reason = f"it can't be looked at ({error.strerror or error})"
            left.append(DirectoryFigures(directory=str(directory), state=State.LEFT, reason=reason))
    if not usable and not left and named:
        if rings and not own:
            raise Unusable(path, State.LEFT, _not_own(path))
        _refuse_open(path, rings)
        raise Unusable(path, State.EMPTY, "it holds no rings")
    return usable, left


def _has_own_rings(directory: Path) -> bool:
    """Tell whether a path in a base is a directory of this process's user with rings.

    Raises:
        Unusable: It is open to others.
    """
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    rings = ring_files(directory)
    if status.st_mode & _OTHERS_WRITE or not _is_safe(directory):
        _refuse_open(directory, rings)
        return False
    return bool(rings)


def _refuse_open(path: Path, rings: Iterable[Path]) -> None:
    """Raise Unusable for a directory that is open to others, if this process's user has rings there.

    Others' were put there by those who may write.
    """
    if any(ring.lstat().st_uid == os.geteuid() for ring in rings):
        raise Unusable(path, State.LEFT, f"others may write in it or above it; `chmod go-w {path}`, or move it")


def _is_safe(path: Path) -> bool:
    """Tell whether nobody can exchange a directory for another one.

    That is asked for root only: whatever else a process of an ordinary user opens, it does so with that user's rights.
    """
    if os.geteuid() != ROOT:
        return True
    if os.path.realpath(path) != str(path):  # a link was put in its way meanwhile
        return False
    for parent in path.parents:
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
