"""How much memory a ring takes, and whose the directories are that rings are in by default."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_train.exceptions import RingError
from otel_train.ring import RingSize, RingWriter, default_base, default_bases, directory, make_ring, ring_path, room
from tests.ring.test_ring import IDENTITY, SCHEMA
from tests.support.mounts import mounted


def make(where: Path, size: RingSize) -> RingWriter:
    return make_ring(ring_path(where, IDENTITY), SCHEMA, IDENTITY, size=size)


def test_ranks_share_quarter_of_memory(tmp_path: Path) -> None:
    """Three quarters are left to the loaders."""
    with mounted(tmp_path, "size=4m"):
        ring = make(tmp_path, RingSize(records=2**20, sharers=4))
        assert 2**17 < ring.geometry.file_size <= 2**18
        ring.release()


@pytest.mark.parametrize(("sharers", "records"), [(1, 64), (8, 35), (64, None)])
def test_large_records_leave_half_free(sharers: int, records: int | None, tmp_path: Path) -> None:
    """They hold 64 records only where that many of each rank fit into it, and no ring is made that were of no use."""
    with mounted(tmp_path, "size=256k"):
        if records is None:
            with pytest.raises(RingError, match="no room"):
                make(tmp_path, RingSize(max_bytes=1, sharers=sharers))
        else:
            ring = make(tmp_path, RingSize(max_bytes=1, sharers=sharers))
            assert ring.geometry.records == records
            ring.release()


@pytest.mark.parametrize(
    ("groups", "name"), [("0::/job/rank\n", "memory.max"), ("5:memory:/job/rank\n0::/\n", "memory.limit_in_bytes")]
)
def test_container_memory_bounds_rings(groups: str, name: str, tmp_path: Path) -> None:
    """The lowest limit of all groups that hold the process; a shared memory of another size does not help."""
    root = tmp_path / "memory" if "memory:" in groups else tmp_path
    (root / "job" / "rank").mkdir(parents=True)
    (tmp_path / "own").write_text(groups)
    assert room.memory_limit(tmp_path, tmp_path / "own") == float("inf")
    (root / "job" / "rank" / name).write_text("max\n")
    (root / "job" / name).write_text(f"{2**29}\n")
    assert room.memory_limit(tmp_path, tmp_path / "own") == 2**29


def test_rings_take_sixteenth_of_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its shared memory, or its disk, has more room than that."""
    monkeypatch.setattr(room, "memory_limit", lambda: 2.0**22)
    ring = make(tmp_path, RingSize(records=2**20))
    assert 2**17 < ring.geometry.file_size <= 2**18
    ring.release()


def test_smaller_ring_is_made_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter, a sixteenth …, where the file system says that there is more room than a quota leaves."""
    monkeypatch.setattr(room, "_free_bytes", lambda _: float("inf"))
    with mounted(tmp_path, "size=200k"):
        ring = make(tmp_path, RingSize())
        assert ring.geometry.records == 256
        ring.release()


def test_missing_directory_is_made_again(tmp_path: Path) -> None:
    """Between the beginning of a session and its first step."""
    assert make(tmp_path / "run", RingSize()).path.parent.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that stands for the machine's shared memory."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    return tmp_path


def link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def give_away(path: Path) -> None:
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("giving a directory to another user needs root")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("take", [link, give_away, Path.touch])
def test_taken_name_is_skipped(take: Callable[[Path], None], memory: Path) -> None:
    """By a link, a directory of another user, or a file; tools look there too."""
    name = f"otel_train-{os.getuid()}"
    take(memory / name)
    assert default_base() == memory / f"{name}-1"
    assert default_base() == memory / f"{name}-1"
    assert default_bases()[0] == memory / f"{name}-1"
    assert list((memory / "elsewhere").glob("*")) == []


def test_umask_leaves_files_private(memory: Path) -> None:
    """Directories that their owner could not enter would be of no use either."""
    before = os.umask(0o777)
    try:
        ring = make(default_base() / "run", RingSize())
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (ring.path, ring.path.parent, ring.path.parent.parent)]
    assert (modes, ring.path.is_relative_to(memory)) == ([0o600, 0o700, 0o700], True)
