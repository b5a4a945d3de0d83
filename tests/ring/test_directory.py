"""Whose the directories are that rings are in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_train.exceptions import RingError
from otel_train.ring import RingSize, default_base, default_bases, directory, make_ring, prepare_directory, ring_path
from tests.support.written_rings import IDENTITY, SCHEMA, written_ring


@pytest.mark.parametrize("before", [None, 0o777])
def test_files_are_private(before: int | None, tmp_path: Path) -> None:
    """Rings are 0600 in a 0700 directory, also where a wider one with nothing else in it was there."""
    if before is not None:
        prepare_directory(tmp_path / "of" / "run")
        written_ring(tmp_path / "of" / "run", 1).path.rename(tmp_path / "of" / "run" / "older.ring")
        (tmp_path / "of" / "run").chmod(before)
    prepare_directory(tmp_path / "of" / "run")
    ring = written_ring(tmp_path / "of" / "run", 1)
    modes = [path.stat().st_mode & 0o777 for path in (ring.path, ring.path.parent, ring.path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o757])
def test_shared_directory_keeps_mode(mode: int, tmp_path: Path) -> None:
    """A directory with other files keeps its mode, and is refused where others could put rings into it."""
    (tmp_path / "results.csv").touch()
    tmp_path.chmod(mode)
    if mode & 0o022:
        with pytest.raises(RingError, match="may be written by others"):
            prepare_directory(tmp_path)
    else:
        prepare_directory(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == mode


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that stands for the machine's shared memory."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    return tmp_path


def _link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def _give_away(path: Path) -> None:
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("giving a directory to another user needs root")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("take", [_link, _give_away, Path.touch])
def test_taken_name_is_skipped(take: Callable[[Path], None], memory: Path) -> None:
    """Where a link, another user's directory or a file has the name, the next name is used, and tools look there."""
    name = f"otel_train-{os.getuid()}"
    take(memory / name)
    assert default_base() == memory / f"{name}-1"
    assert default_base() == memory / f"{name}-1"
    assert default_bases()[0] == memory / f"{name}-1"
    assert list((memory / "elsewhere").glob("*")) == []


def test_umask_leaves_files_private(memory: Path) -> None:
    """Rings and directories have the same modes under any umask: the owner can use them, nobody else."""
    before = os.umask(0o777)
    try:
        path = ring_path(default_base() / "run", IDENTITY)
        ring = make_ring(path, SCHEMA, IDENTITY, size=RingSize())
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (ring.path, ring.path.parent, ring.path.parent.parent)]
    assert (modes, ring.path.is_relative_to(memory)) == ([0o600, 0o700, 0o700], True)
