"""The lock of a directory of rings."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from otel_train.ring import LOCK_NAME, is_served, lock_holder, take_lock


def test_lock_is_one_processes(tmp_path: Path) -> None:
    """One at a time has the lock, and it is free again when that one closes it."""
    lock = take_lock(tmp_path)
    assert lock is not None
    assert (take_lock(tmp_path), is_served(tmp_path), lock_holder(tmp_path)) == (None, True, os.getpid())
    os.close(lock)
    assert (is_served(tmp_path), lock_holder(tmp_path)) == (False, 0)


@pytest.mark.parametrize("made_anew", [False, True])
def test_removed_lock_is_none(made_anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that is removed while it is taken locks nothing: another process may have the next one."""
    locked = fcntl.flock

    def remove(descriptor: int, operation: int) -> None:
        (tmp_path / LOCK_NAME).unlink()
        if made_anew:
            (tmp_path / LOCK_NAME).touch()
        locked(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove)
    assert take_lock(tmp_path) is None


def test_planted_lock_is_refused(tmp_path: Path) -> None:
    """A link with the lock's name is not followed."""
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        take_lock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
