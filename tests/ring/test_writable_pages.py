"""Rings on a disk, whose pages are made writable before they are written, and what a directory is on."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from otel_train.catalogue import Metric
from otel_train.ring import (
    IN_MEMORY,
    Identity,
    Kind,
    RingReader,
    RingWriter,
    Schema,
    file_system_of,
    is_remote,
    keep_writable,
    ring_path,
    writable_pages,
    writer,
)
from otel_train.ring.file_system import mounted_kind
from tests.support.waiting import wait_until

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:28 / /data rw shared:5 master:1 - nfs4 server:/export - ext4 rw
32 31 0:29 / /data/a\\040b rw - fuse.sshfs somebody@there:/ rw
"""


def ring_in(folder: Path, records: int = 4096) -> RingWriter:
    """Return a ring whose records have ten values."""
    identity = Identity(run_id="run", attempt=1)
    return RingWriter(
        ring_path(folder, identity), Schema(tuple(Metric(f"m{n}") for n in range(10))), identity, records=records
    )


def dirty_kib(path: Path) -> int:
    """Return how much of a file's mapping in this process was made writable by writes."""
    _, _, mapping = Path("/proc/self/smaps").read_text().partition(f"{path}\n")
    return sum(int(line.split()[1]) for line in mapping.splitlines()[:24] if line.startswith(("Shared_D", "Private_D")))


def test_next_pages_become_writable(tmp_path: Path) -> None:
    """Those of the header and of the next records, which keep what they hold."""
    ring = ring_in(tmp_path)
    ring.append(1, 1, int(Kind.RANK), [1.0] * ring.geometry.values)
    before, expected = dirty_kib(ring.path), 4 * (writable_pages.AHEAD - 1)
    in_memory = file_system_of(tmp_path) in IN_MEMORY  # such files are so from the beginning
    # Once the system has written them to the disk, which it may do at any time, they are so no longer.
    wait_until(lambda: ring.touch_ahead() and (in_memory or before < expected <= dirty_kib(ring.path)))
    assert [record.step for record in RingReader(ring.path).read(0, 10)[0]] == [1]


def test_pages_follow_written_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ring's end they are its first ones."""
    spans: list[tuple[int, int]] = []

    def note(_: mmap.mmap, begin: int, end: int) -> bool:
        spans.append((begin, end))
        return True

    monkeypatch.setattr(writer, "make_writable", note)
    ring = ring_in(tmp_path, records=1000)
    first, size, length = ring.geometry.header_size, ring.geometry.record_size, writable_pages.AHEAD * mmap.PAGESIZE
    for _ in range(995):
        ring.append(1, 1, int(Kind.RANK), [1.0] * ring.geometry.values)
    assert ring.touch_ahead()
    assert spans == [
        (0, first),
        (first + 995 * size, ring.geometry.file_size),
        (first, first + length - 5 * size),
    ]


@pytest.mark.parametrize("released", [True, False], ids=["released", "forgotten"])
def test_thread_ends_with_ring(released: bool, tmp_path: Path) -> None:
    """Nothing keeps a ring's mapping for its sake."""
    ring = ring_in(tmp_path)
    thread = keep_writable(ring)
    if released:
        ring.release()
        assert not ring.touch_ahead()
    del ring
    thread.join(30)
    assert not thread.is_alive()


def test_directory_tells_file_system(tmp_path: Path) -> None:
    """By the mount that it is on, also where another one is above."""
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(tmp_path) not in ("", "proc")


@pytest.mark.parametrize(("number", "kind", "remote"), [("22", "ext4", False), ("31", "nfs4", True), ("9", "", False)])
def test_mounts_tell_kind(number: str, kind: str, remote: bool) -> None:
    """Optional fields, and a source that looks like the separator, are no trouble."""
    assert mounted_kind(MOUNTS, number) == kind
    assert is_remote(kind) == remote


@pytest.mark.parametrize(("kind", "remote"), [("fuse.sshfs", True), ("fuse.fuse-overlayfs", False), ("overlay", False)])
def test_fuse_may_be_remote(kind: str, remote: bool) -> None:
    """A program may serve files of another machine."""
    assert is_remote(kind) == remote
