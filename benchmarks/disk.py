"""Measure what a record costs in a ring on a disk beside one in memory, alone and while other processes write there."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Figures, Goal, Section, quantile
from otel_train.catalogue import Metric
from otel_train.ring import Identity, Kind, RingWriter, Schema, file_system_of, keep_writable, ring_path

MEMORY, OURS, BARE = "in memory", "on a disk, as a session has it", "on a disk, without the thread"
VALUES, PACE, BLOCK = 20, 0.002, 500
LONG = 10_000.0
"""Microseconds that nothing but a wait takes."""
SIZE = "1536M"
WRITER = """
import os, sys
folder, many = sys.argv[1], int(sys.argv[2])
block = os.urandom(1 << 20)
for number in range(sys.maxsize):
    file = os.open(f"{folder}/{many}-{number % (50 // many or 1)}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for _ in range(many):
        os.write(file, block if many > 1 else block[:8192])
    os.fsync(file)
    os.close(file)
"""
"""Writes files of so many MiB, or, for 1, small ones, and has each on the disk before the next."""


@dataclass
class Timed:
    """Times of one ring's records."""

    ring: RingWriter
    times: list[float] = field(default_factory=list)
    """Microseconds."""
    waits: int = 0
    """Records in which the thread gave its core away: it waited for the file system."""

    def write(self, step: int) -> None:
        """Write a record and take its time."""
        values, before = [1.0] * self.ring.geometry.values, _waits()
        begin = time.perf_counter_ns()
        self.ring.append(step, begin, int(Kind.CLUSTER), values)
        self.times.append((time.perf_counter_ns() - begin) / 1000)
        self.waits += _waits() > before

    def figures(self) -> Figures:
        """Return the figures of blocks of records, the first of which warms up."""
        blocks = [self.times[begin : begin + BLOCK] for begin in range(BLOCK, len(self.times), BLOCK)]
        return Figures([statistics.median(block) for block in blocks], [quantile(block, 0.99) for block in blocks])

    def row(self, name: str, where: str) -> list[str]:
        """Return the row of the table of waits."""
        long = sum(value >= LONG for value in self.times)
        return [where, name, f"{len(self.times):,}", str(self.waits), str(long), f"{max(self.times) / 1000:.1f}"]


def _waits() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@contextlib.contextmanager
def disk() -> Iterator[Path]:
    """Yield a folder on a new ext4 with a journal where this user may mount one, else on the disk of /var/tmp."""
    with tempfile.TemporaryDirectory(prefix="otel-train-bench-", dir="/var/tmp") as folder:  # not in memory
        image, mounted = Path(folder) / "image", Path(folder) / "mounted"
        mounted.mkdir()
        if os.geteuid() or not shutil.which("mkfs.ext4"):
            yield mounted
            return
        commands: list[list[str]] = [
            ["fallocate", "-l", SIZE, str(image)],
            ["mkfs.ext4", "-q", "-F", str(image)],
            ["mount", "-o", "loop", str(image), str(mounted)],
        ]
        if any(subprocess.run(command, check=False).returncode for command in commands):
            yield mounted
            return
        try:
            yield mounted
        finally:
            subprocess.run(["umount", "--lazy", mounted], check=True)


@contextlib.contextmanager
def writers(folder: Path) -> Iterator[None]:
    """Have two processes write files in a folder: large ones, as checkpoints are, and small ones."""
    folder.mkdir()
    running = [subprocess.Popen([sys.executable, "-c", WRITER, folder, str(many)]) for many in (256, 1)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(folder: Path, memory: Path, seconds: float) -> dict[str, Timed]:
    """Write records into the three rings, one after the other at each step, in an order that turns."""
    timed = {name: Timed(ring_in(parent / name.replace(" ", "-"))) for name, parent in _parents(folder, memory).items()}
    keep_writable(timed[OURS].ring)
    end, order = time.monotonic() + seconds, list(timed.values())
    for step in itertools.count(1):
        for one in order:
            one.write(step)
        order = order[1:] + order[:1]
        if time.monotonic() >= end:
            break
        time.sleep(PACE)
    for one in order:
        one.ring.release()
    return timed


def _parents(folder: Path, memory: Path) -> Mapping[str, Path]:
    return {MEMORY: memory, OURS: folder, BARE: folder}


def ring_in(folder: Path) -> RingWriter:
    """Return a ring of 4096 records in a new folder."""
    folder.mkdir(mode=0o700)
    identity = Identity(run_id="bench", attempt=time.time_ns())
    schema = Schema(tuple(Metric(f"bench/{number}") for number in range(VALUES)))
    return RingWriter(ring_path(folder, identity), schema, identity)


def run(*, quick: bool) -> Section:
    """Measure."""
    seconds = 3.0 if quick else 40.0
    with disk() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # what it is compared with
        kind = file_system_of(folder)
        (folder / "alone").mkdir()
        (Path(memory) / "beside").mkdir()
        alone = measure(folder / "alone", Path(memory), seconds)
        with writers(folder / "writers"):
            busy = measure(folder, Path(memory) / "beside", 2 * seconds)
    figures = {name: timed.figures() for name, timed in alone.items()}
    beside = {name: timed.figures() for name, timed in busy.items()}
    return Section(
        number=18,
        title="A ring on a disk",
        how=(
            f"A record of {VALUES} means, {PACE * 1000:g} ms of sleep, and so on for {seconds:g} s, into three rings "
            f"of 4096 records in an order that turns; blocks of {BLOCK} records give a median and a 99th percentile. "
            f"The disk is {kind}. The second table is of {2 * seconds:g} s in which two processes write files there, "
            "of 256 MiB and of 8 KiB, and sync each. The third counts records in which the training thread waited in "
            "the kernel."
        ),
        unit="µs",
        figures=figures,
        ours=OURS,
        goals=goals(figures, busy),
        tables=[
            table("while two processes write", beside),
            [
                ["situation", "ring", "records", "waited", f">= {LONG / 1000:g} ms", "longest, ms"],
                *(timed.row(name, "alone") for name, timed in alone.items()),
                *(timed.row(name, "writers") for name, timed in busy.items()),
            ],
        ],
    )


def goals(alone: Mapping[str, Figures], busy: Mapping[str, Timed]) -> list[Goal]:
    """Return the goals."""
    ratio = alone[OURS].ratio(alone[MEMORY])[0]
    waited, bare = busy[OURS].waits, busy[BARE].waits
    return [
        Goal("median at most 1.5x of a ring's in memory", f"{ratio:.2f}x", ratio <= 1.5),
        Goal("a tenth of the waits without the thread", f"{waited} of {bare}", 10 * waited <= max(bare, 10)),
    ]


def table(where: str, figures: dict[str, Figures]) -> list[list[str]]:
    """Return a table of figures as the section's own has them."""
    (_, *header), *rows = report.table(Section(0, "", "", "µs", figures, OURS))
    return [[where, *header], *rows]
