"""Measure what the sidecar takes of the machine, its lag, and how many points a second one core gets through.

The real process, `python -m otel_train.sidecar`, as a rank starts it, over rings in memory that another process writes
at an even pace, and a real OpenTelemetry Collector as its receiver. The lag of a record is the time from its time stamp
to the move of the ring's cursor past it, which follows the receiver's acknowledgement; cursors are looked at each
10 ms, so a lag is at most that much too long.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.sdk.metrics.export import MetricsData

from benchmarks.measure import Figures, Goal, Section, quantile, spread
from benchmarks.paced_rings import SCHEMA, VALUES, make, record
from benchmarks.processes import cpu_seconds, debug_collector, environment, peak_mib, python, running
from otel_train.ring import Identity, Kind, RingReader, ring_files
from otel_train.sidecar.points import Origin, PointBuilder
from tests.support.program import Program
from tests.support.sdk_points import to_sdk
from tests.support.waiting import wait_until

RINGS, RATE = 8, 100
POINTS = VALUES + 2
CPU, MEMORY, LAG = 0.10, 120.0, 1.0
LOOK = 0.01
BACKLOG = 4000
"""Records in each of the rings that are drained; by default a ring holds 4096."""
DRAIN = "otel_train's sidecar, all of it: rings to acknowledged requests"
TITLE = f"sidecar: {RINGS} rings x {RATE} steps/s x {VALUES} values"
HOW = (
    f"`python -m otel_train.sidecar`, started as a rank starts it, over {RINGS} rings of the default size under "
    f"/dev/shm; one writer process at {RATE} steps/s for each ring, {VALUES} values a record; a real collector (debug "
    "exporter) takes the points over gRPC. One job: a rank's own record in each ring at each step, sent once in 10 s, "
    "and the cluster's in rank 0's, each sent. 8 jobs: the cluster's record in each ring, "
    f"{RINGS * RATE * POINTS:,} points/s. CPU is the process's user and system time over the wall time, after its "
    "start; memory its largest resident set, the rings' pages included; lag from a record's time stamp to the move of "
    "the ring's cursor, which follows the acknowledgement, looked at each 10 ms."
)


@dataclass(slots=True)
class Load:
    """Figures of one round at an even pace."""

    cpu: float
    """Share of one core."""
    memory: float
    """MiB."""
    lags: list[float] = field(default_factory=list)
    """Seconds, of each record."""


@contextmanager
def sidecar(directory: Path, endpoint: str, log: Path) -> Iterator[Program]:
    """Run a sidecar as a rank starts it: this process is the rank."""
    command = python("otel_train.sidecar", str(directory), f"--parent={os.getpid()}", "--rank-interval=10")
    with running(command, log, environment(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)) as program:
        yield program


@contextmanager
def ring_directory() -> Iterator[Path]:
    """Give a directory where rings are by default: in memory."""
    home = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def pid_of(program: Program) -> int:
    """Return a running program's pid."""
    assert program.process is not None
    return program.process.pid


class Acknowledgements:
    """Looks at rings and notes how old each record is when it has been acknowledged."""

    def __init__(self, directory: Path) -> None:
        self._readers = [RingReader(path) for path in ring_files(directory)]
        self._seen = [reader.cursor.position for reader in self._readers]

    def look(self) -> list[float]:
        """Return the seconds of each record that was acknowledged since the last look."""
        lags = []
        for index, reader in enumerate(self._readers):
            position = reader.cursor.position
            now = time.time_ns()
            records, _, _ = reader.read(self._seen[index], position - self._seen[index])
            lags += [(now - record.time_ns) / 1e9 for record in records]
            self._seen[index] = position
        return lags

    def close(self) -> None:
        """Give the mappings back."""
        for reader in self._readers:
            reader.close()


def paced(endpoint: str, home: Path, *, jobs: bool, seconds: float) -> Load:
    """Measure one round at an even pace."""
    with ring_directory() as rings, ExitStack() as stack:
        program = stack.enter_context(sidecar(rings, endpoint, home / "sidecar.log"))
        steps = int((seconds + 10) * RATE)
        writer = python("benchmarks.paced_rings", str(rings), f"--steps={steps}", f"--rate={RATE}")
        writer += [f"--rings={RINGS}", *(["--jobs"] if jobs else [])]
        stack.enter_context(running(writer, home / "writer.log", environment()))
        wait_until(lambda: len(ring_files(rings)) == RINGS, what="the rings", log=home / "writer.log")
        acknowledgements = Acknowledgements(rings)
        stack.callback(acknowledgements.close)
        wait_until(lambda: len(acknowledgements.look()) > 0, what="the first acknowledgement", log=home / "sidecar.log")
        time.sleep(2)
        acknowledgements.look()
        pid = pid_of(program)
        begin, used = time.monotonic(), cpu_seconds(pid)
        load = Load(0.0, 0.0)
        while time.monotonic() - begin < seconds:
            time.sleep(LOOK)
            load.lags += acknowledgements.look()
        load.cpu = (cpu_seconds(pid) - used) / (time.monotonic() - begin)
        load.memory = peak_mib(pid)
        return load


def drain(endpoint: str, home: Path, steps: int) -> float:
    """Return how many points the sidecar sends in a second of its CPU time, when all is there already."""
    with ring_directory() as rings, ExitStack() as stack:
        writers = [make(rings, rank, jobs=True, rings=RINGS) for rank in range(RINGS)]
        for step in range(1, steps + 1):
            values = record(writers[0].geometry.values, step)
            for writer in writers:
                writer.write(step, time.time_ns(), Kind.CLUSTER, values)
        readers = [RingReader(writer.path) for writer in writers]
        program = stack.enter_context(sidecar(rings, endpoint, home / "sidecar.log"))
        wait_until(lambda: sum(reader.cursor.position for reader in readers) > 0, what="the first acknowledgement")
        before, used = sum(reader.cursor.position for reader in readers), cpu_seconds(pid_of(program))
        wait_until(lambda: all(reader.cursor.position == steps for reader in readers), 300, "the drain", pause=0.01)
        used = cpu_seconds(pid_of(program)) - used
        for reader in readers:
            reader.close()
        return (steps * RINGS - before) * POINTS / used


def encode(records: int, repeats: int) -> float:
    """Return how many points the SDK's own encoder gets to bytes in a second of CPU time; they are made beforehand."""
    layout = SCHEMA.layout()
    builder = PointBuilder(Origin(Identity(run_id="bench", attempt=1), layout))
    for step in range(1, records + 1):
        values = record(layout.sums + 2 * layout.peaks, step)
        builder.add_cluster(step, time.time_ns(), values, values[: layout.sums])
    message = ResourceMetrics()
    builder.write(message)
    data = MetricsData(resource_metrics=[to_sdk(message)])
    begin = time.process_time()
    for _ in range(repeats):
        encode_metrics(data).SerializeToString()
    return builder.points * repeats / (time.process_time() - begin)


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, seconds = (1, 4.0) if quick else (3, 25.0)
    loads: dict[bool, list[Load]] = {False: [], True: []}
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name, debug_collector(Path(name)) as endpoint:
        home = Path(name)
        for _ in range(rounds):
            for jobs, rounds_loads in loads.items():
                rounds_loads.append(paced(endpoint, home, jobs=jobs, seconds=seconds))
            ours.append(drain(endpoint, home, BACKLOG // (10 if quick else 1)))
            theirs.append(encode(64, 4 if quick else 20))
    section = Section(6, TITLE, HOW, "points/s a core")
    section.figures = {DRAIN: Figures(ours), "the OTel SDK's encode_metrics + SerializeToString alone": Figures(theirs)}
    section.ours = DRAIN
    names = {False: f"one job of {RINGS} ranks", True: f"{RINGS} jobs of one rank"}
    table = [["", "points/s", "CPU (% of a core)", "memory (MiB)", "lag p50 (s)", "lag p99 (s)", "lag max (s)"]]
    for jobs, rounds_loads in loads.items():
        lags = [lag for load in rounds_loads for lag in load.lags]
        cpus = [100 * load.cpu for load in rounds_loads]
        cpu, memory, p99 = statistics.median(cpus), max(load.memory for load in rounds_loads), quantile(lags, 0.99)
        low, high = spread(cpus)
        rate = (RINGS if jobs else 1) * RATE * POINTS
        table.append(
            [
                names[jobs],
                f"{rate:,}",
                f"{cpu:.1f} ({low:.1f} to {high:.1f})",
                f"{memory:.0f}",
                *(f"{lag:.2f}" for lag in (quantile(lags, 0.5), p99, max(lags))),
            ]
        )
        section.goals += [
            Goal(f"{names[jobs]}: <= 10 % of a core", f"{cpu:.1f} %", cpu <= 100 * CPU),
            Goal(
                f"{names[jobs]}: <= {MEMORY:.0f} MB resident",
                f"{memory * 1.048576:.0f} MB",
                memory * 1.048576 <= MEMORY,
            ),
            Goal(f"{names[jobs]}: lag p99 <= {LAG:.0f} s", f"{p99:.2f} s", p99 <= LAG),
        ]
    section.tables = [table]
    section.notes = [
        f"The drain: {BACKLOG:,} cluster records in each of {RINGS} rings.",
        "The encoder has its points ready, as the SDK's objects, and sends nothing.",
    ]
    return section
