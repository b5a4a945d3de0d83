"""The ring between a rank and its sidecar."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import MIXING, Metric, Phase
from otel_train.exceptions import RingError
from otel_train.ring import (
    MAX_RECORDS,
    Cursor,
    Fact,
    Kind,
    RingReader,
    RingWriter,
    Schema,
    ring_files,
    ring_path,
)
from otel_train.ring.file_format import CURSOR_OFFSET, MAX_SCHEMA, MAX_VALUES, PID_SPACE_OFFSET
from tests.support.written_rings import IDENTITY, SCHEMA, written_ring


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_records_are_read_as_written(tmp_path: Path) -> None:
    """Records, schema and identity come back as they went in."""
    ring = written_ring(tmp_path, 3)
    reader = RingReader(ring.path)
    records, position, lost = reader.read(0, 100)
    assert (reader.schema, reader.identity, position, lost) == (SCHEMA, IDENTITY, 3, 0)
    assert [(record.step, record.time_ns, record.kind, set(record.values)) for record in records] == [
        (step, 10 * step, Kind.CLUSTER, {float(step)}) for step in (1, 2, 3)
    ]


def test_reader_sees_facts_and_phase(tmp_path: Path) -> None:
    """A reader sees the job's facts, and the phase of the training thread with its beginning, also after the end."""
    facts: dict[str, Fact] = {"mixing.horizon": 20.0, "torch": "2"}
    ring = RingWriter(ring_path(tmp_path, IDENTITY), SCHEMA, IDENTITY, records=8, facts=facts)
    reader = RingReader(ring.path)
    before = time.time_ns()
    ring.enter(Phase.DATA)
    phase, since = reader.phase
    assert (reader.facts, phase, before <= since <= time.time_ns()) == (facts, Phase.DATA, True)
    ring.close(1, 1)
    assert reader.phase[0] is Phase.ENDED


@pytest.mark.parametrize(("position", "lost"), [(0, 12), (5, 7), (12, 0), (15, 0)])
def test_reader_counts_overwritten_records(position: int, lost: int, tmp_path: Path) -> None:
    """A reader that is late by more than the ring is told how many records are missing."""
    reader = RingReader(written_ring(tmp_path, 20).path)
    records, end, missing = reader.read(position, 100)
    assert ([record.step for record in records], end, missing) == (list(range(max(position, 12) + 1, 21)), 20, lost)


def test_torn_record_is_counted(tmp_path: Path) -> None:
    """One changed bit costs one record, which is counted."""
    ring = written_ring(tmp_path, 5)
    flip(ring.path, ring.geometry.offset(2) + 50)
    records, position, lost = RingReader(ring.path).read(0, 100)
    assert ([record.step for record in records], position, lost) == ([1, 2, 4, 5], 5, 1)


def test_torn_cursor_leaves_previous(tmp_path: Path) -> None:
    """A reader goes on from the last cursor that was written whole: the two slots are written in turn."""
    ring = written_ring(tmp_path, 3)
    for position in (1, 2):
        totals = (0.5,) * ring.geometry.totals
        RingReader(ring.path, writable=True).move_cursor(Cursor(position, 0, totals, sent_totals=totals))
    assert RingReader(ring.path).cursor.position == 2
    flip(ring.path, CURSOR_OFFSET + 8)  # the second generation is in the first slot
    assert RingReader(ring.path).cursor.position == 1
    assert set(RingReader(ring.path).cursor.totals) == {0.5}


def test_records_survive_killed_writer(tmp_path: Path) -> None:
    """A killed process leaves what it wrote, and the reader sees that the writer is gone."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from tests.support.written_rings import written_ring
        ring = written_ring(Path(sys.argv[1]), 5)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run(
        [sys.executable, "-c", dedent(program), str(tmp_path)], cwd=Path(__file__).parents[2], check=False
    )
    assert run.returncode == -signal.SIGKILL
    reader = RingReader(ring_files(tmp_path)[0])
    assert [record.step for record in reader.read(0, 100)[0]] == [1, 2, 3, 4, 5]
    assert not reader.writer_lives


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 127), byte=st.integers(0, 255), cut=st.integers(0, 6000))
def test_damaged_header_is_ring_error(at: int, byte: int, cut: int, tmp_path: Path) -> None:
    """A damaged header is either read as it was written or refused, whatever sizes it claims."""
    path = ring_path(tmp_path, IDENTITY)
    path.unlink(missing_ok=True)
    content = bytearray(written_ring(tmp_path, 2).path.read_bytes())
    content[at] = byte
    path.write_bytes(content[: len(content) - cut])
    with contextlib.suppress(RingError):
        assert RingReader(path).schema == SCHEMA


def test_full_disk_is_ring_error(tmp_path: Path) -> None:
    """A ring whose blocks do not fit on the disk is refused when it is made: no SIGBUS later."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
    try:
        with pytest.raises(RingError, match="can't be made: File too large"):
            RingWriter(ring_path(tmp_path, IDENTITY), SCHEMA, IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("schema", "records"),
    [
        (SCHEMA, MAX_RECORDS + 1),
        (SCHEMA, 0),
        (Schema(tuple(Metric(f"{name:0250}") for name in range(MAX_SCHEMA // 250))), 4),
        (Schema(MIXING, tuple(f"{name:x}" for name in range(MAX_VALUES // 4))), 4),
    ],
    ids=["records", "none", "schema", "values"],
)
def test_oversized_ring_is_refused(schema: Schema, records: int, tmp_path: Path) -> None:
    """A ring that no reader would take is not written."""
    with pytest.raises(RingError, match="beyond what a reader takes"):
        RingWriter(ring_path(tmp_path, IDENTITY), schema, IDENTITY, records=records)


@pytest.mark.faults
def test_writer_in_container_is_seen(tmp_path: Path) -> None:
    """The lock on a ring's file tells another container whether the writer lives; children do not inherit it."""
    path = ring_path(tmp_path, IDENTITY)
    write = (
        "import os, sys; from pathlib import Path; from tests.support.written_rings import written_ring\n"
        "ring = written_ring(Path(sys.argv[1]), 1); pid = os.fork() or os.execvp('sleep', ['sleep', '60'])\n"
        "print(pid, flush=True); sys.stdin.read()"
    )
    read = (
        "import sys; from pathlib import Path; from otel_train.ring import RingReader\n"
        "print(RingReader(Path(sys.argv[1])).writer_lives)"
    )

    def seen_elsewhere() -> str:
        command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", read, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    writer = subprocess.Popen(
        [sys.executable, "-c", write, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    child = int(writer.stdout.readline())
    alive = seen_elsewhere()
    writer.kill()
    writer.wait()
    dead = seen_elsewhere()
    os.kill(child, signal.SIGKILL)
    assert (alive, dead) == ("True", "False")


@pytest.mark.parametrize(
    ("offset", "content", "lives"),
    [(0, b"", True), (0, bytes(24), True), (0, b"another machine!", False), (16, b"\1\0\0\0", False)],
    ids=["here", "earlier release", "other boot", "other namespace"],
)
def test_pid_counts_at_home_only(offset: int, content: bytes, lives: bool, tmp_path: Path) -> None:
    """A copied ring, or one from before a restart, is nobody's, though a process has the writer's pid and start."""
    ring = written_ring(tmp_path, 1)
    ring.release()  # a copy is not locked
    with ring.path.open("r+b") as file:
        file.seek(PID_SPACE_OFFSET + offset)
        file.write(content)
    assert RingReader(ring.path).writer_lives is lives


def test_late_cluster_record_keeps_progress(tmp_path: Path) -> None:
    """A cluster record of an earlier step does not move the rank's progress back."""
    ring = RingWriter(ring_path(tmp_path, IDENTITY), SCHEMA, IDENTITY)
    for step, kind in ((4, Kind.RANK), (5, Kind.RANK), (4, Kind.CLUSTER)):
        ring.write(step, 10 * step, kind, [0.0] * ring.geometry.values)
    progress = RingReader(ring.path).progress
    assert (progress.step, progress.time_ns) == (5, 50)


def test_long_ring_fills_no_memory(tmp_path: Path) -> None:
    """A reader keeps none of the pages that it has read, however long the ring is, also over the file's end."""
    ring = written_ring(tmp_path, 25_000, records=20_000)
    reader = RingReader(ring.path)
    position = 0
    while position < ring.written:
        _, position, _ = reader.read(position, 512)
    mappings = Path("/proc/self/smaps").read_text().split(f"{ring.path}\n")[1:]
    resident = [int(re.findall(r"^Rss: +(\d+) kB", mapping, re.MULTILINE)[0]) << 10 for mapping in mappings]
    assert min(resident) < ring.geometry.file_size / 10
    assert max(resident) > ring.geometry.file_size / 2  # the writer's
