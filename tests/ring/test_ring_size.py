"""How much memory a ring takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import RingError
from otel_train.ring import RingSize, RingWriter, make_ring, ring_path, ring_size
from tests.support.mounts import mounted
from tests.support.written_rings import IDENTITY, SCHEMA


def make(where: Path, size: RingSize) -> RingWriter:
    return make_ring(ring_path(where, IDENTITY), SCHEMA, IDENTITY, size=size)


def test_ranks_share_quarter_of_memory(tmp_path: Path) -> None:
    """The rings of all ranks of a machine take a quarter of what is free; the rest is left to the loaders."""
    with mounted(tmp_path, "size=4m"):
        ring = make(tmp_path, RingSize(records=2**20, sharers=4))
        assert 2**17 < ring.geometry.file_size <= 2**18
        ring.release()


@pytest.mark.parametrize(("sharers", "records"), [(1, 64), (10, 45), (64, None)])
def test_large_records_leave_half_free(sharers: int, records: int | None, tmp_path: Path) -> None:
    """Rings of large records hold 64 of them or what half of the free memory allows; one of no use is not made."""
    with mounted(tmp_path, "size=1m"):
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
    """The lowest memory limit of all control groups that hold the process is found, in both versions of them."""
    root = tmp_path / "memory" if "memory:" in groups else tmp_path
    (root / "job" / "rank").mkdir(parents=True)
    (tmp_path / "own").write_text(groups)
    assert ring_size.memory_limit(tmp_path, tmp_path / "own") == float("inf")
    (root / "job" / "rank" / name).write_text("max\n")
    (root / "job" / name).write_text(f"{2**29}\n")
    assert ring_size.memory_limit(tmp_path, tmp_path / "own") == 2**29


def test_rings_take_sixteenth_of_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings take a sixteenth of a container's memory at most, however much room the file system has."""
    monkeypatch.setattr(ring_size, "memory_limit", lambda: 2.0**22)
    ring = make(tmp_path, RingSize(records=2**20))
    assert 2**17 < ring.geometry.file_size <= 2**18
    ring.release()


def test_smaller_ring_is_made_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a quota leaves less room than the file system says, a ring of a quarter, a sixteenth … is made."""
    monkeypatch.setattr(ring_size, "_free_bytes", lambda _: float("inf"))
    with mounted(tmp_path, "size=200k"):
        ring = make(tmp_path, RingSize())
        assert ring.geometry.records == 256
        ring.release()


def test_missing_directory_is_made_again(tmp_path: Path) -> None:
    """A directory that was cleaned away between a session's beginning and its first step is made again."""
    assert make(tmp_path / "run", RingSize()).path.parent.stat().st_mode & 0o777 == 0o700
