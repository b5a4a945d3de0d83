"""Many simulated ranks at one real collector: rings written here, real sidecars, the collector's own counts."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from otel_train.catalogue import LEDGER, MIXING, TIMING, Metric
from otel_train.ring import Identity, Kind, RingWriter, Schema, prepare_directory, ring_path
from otel_train.sidecar.points import Origin, PointBuilder
from tests.support.ports import free_port
from tests.support.stack_programs import collector

LOG_SECONDS, RANK_SECONDS = 1.0, 10.0
"""Between two log steps of the job that is spoken of, and the default between two exports of a rank's own values."""
SIDECARS, RINGS = 4, 100
RANK_INTERVAL = 1.0
"""Ten times as often as by default: so each ring stands for ten ranks."""
PIPELINE = 5
"""Points on the pipeline itself that go with a rank's own values, the age of its last step included."""
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}", max_recv_msg_size_mib: 16}}}}}}
exporters:
  debug: {{verbosity: basic, sampling_initial: 1, sampling_thereafter: 100000}}
service:
  telemetry:
    metrics:
      level: normal
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]
  pipelines:
    metrics: {{receivers: [otlp], exporters: [debug]}}
"""


@dataclass(frozen=True, slots=True)
class Flood:
    """Load as the collector saw it."""

    sidecars: int
    rings: int
    rank_interval: float
    seconds: float
    expected: int
    """Points that the records make."""
    most: int
    """Those, and what goes with them on the pipeline itself: for each record, or for several that were late."""
    accepted: int
    """Points that the collector counted."""
    collector_us: float
    """Its CPU time for a point, in microseconds."""
    sidecar_us: float
    """The sidecars' CPU time for a point, in microseconds."""


@functools.cache
def job_schema() -> Schema:
    """Return the schema of the reference job: both sources, two modalities, a loss."""
    return Schema((*MIXING, *LEDGER, *TIMING, Metric("train/loss")), ("code", "prose"))


def schema_json() -> str:
    """Return what a rank tells the others about its schema, once."""
    return json.dumps(["", [job_schema().modalities, job_schema().describe()]])


def record_values() -> list[float]:
    """Return the values of a record with every metric measured."""
    layout = job_schema().layout()
    return [1.0] * (layout.sums + 2 * layout.peaks)


@functools.cache
def points_of_a_record() -> tuple[int, int]:
    """Return the data points of a cluster record, and those of a rank's, those on the pipeline included."""
    layout, values = job_schema().layout(), record_values()
    cluster, own = (PointBuilder(Origin(Identity(run_id="bench", attempt=1), layout)) for _ in range(2))
    cluster.add_cluster(1, 1, values, values[: layout.sums])
    own.add_rank(1, 1, values, values[: layout.sums])
    return cluster.points, own.points + PIPELINE


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def accepted_points(port: int) -> int:
    """Return the collector's own count of accepted points."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        counts = re.findall(r"^otelcol_receiver_accepted_metric_points\S* (\S+)$", answer.read().decode(), re.MULTILINE)
    return int(sum(map(float, counts)))


@contextlib.contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as long as the block, and end it."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


def wait_for(port: int, seconds: float = 30.0) -> None:
    """Wait until the collector answers.

    Raises:
        RuntimeError: It does not.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            accepted_points(port)
            return
        time.sleep(0.1)
    raise RuntimeError("the collector does not answer")


def make_rings(folder: Path) -> list[list[RingWriter]]:
    """Make the rings of each simulated node."""
    nodes = []
    for node in range(SIDECARS):
        directory = folder / f"node{node}"
        prepare_directory(directory)
        ranks = range(node * RINGS, (node + 1) * RINGS)
        identities = [
            Identity(run_id="bench", attempt=1, rank=rank, local_rank=rank % RINGS, world_size=SIDECARS * RINGS)
            for rank in ranks
        ]
        made = [
            RingWriter(ring_path(directory, identity), job_schema(), identity, records=256) for identity in identities
        ]
        nodes.append(made)
    return nodes


def flood(seconds: float) -> Flood | None:
    """Let simulated nodes send for so long; None where the collector can't be built."""
    try:
        program = collector()
    except RuntimeError:
        return None
    otlp, own = free_port(), free_port()
    cluster_points, rank_points = points_of_a_record()
    values = record_values()
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        (folder / "collector.yaml").write_text(CONFIG.format(otlp=otlp, own=own))
        sink = stack.enter_context(process([str(program), "--config", str(folder / "collector.yaml")], folder / "log"))
        wait_for(own)
        nodes = make_rings(folder)
        sidecars = [
            stack.enter_context(
                process(
                    [
                        sys.executable,
                        "-m",
                        "otel_train.sidecar",
                        str(folder / f"node{node}"),
                        f"--rank-interval={RANK_INTERVAL}",
                    ],
                    folder / f"sidecar{node}",
                    OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{otlp}",
                    OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
                )
            )
            for node in range(SIDECARS)
        ]
        time.sleep(3.0)  # they start
        pids = [sidecar.pid for sidecar in sidecars]
        before = cpu_seconds(sink.pid), sum(map(cpu_seconds, pids))
        begin, steps, stamp = time.monotonic(), max(1, int(seconds)), time.time_ns()
        for step in range(1, steps + 1):
            # Stamps are even whatever the driver is late, so that each record of a rank is due.
            for ring in (ring for node in nodes for ring in node):
                ring.write(step, stamp + step * 1_000_000_000, Kind.RANK, values)
            nodes[0][0].write(step, stamp + step * 1_000_000_000, Kind.CLUSTER, values)
            time.sleep(max(0.0, begin + step * LOG_SECONDS - time.monotonic()))
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline and any(ring.acknowledged < ring.written for node in nodes for ring in node):
            time.sleep(0.2)
        took = time.monotonic() - begin
        counted = accepted_points(own)
        after = cpu_seconds(sink.pid), sum(map(cpu_seconds, pids))
    return Flood(
        SIDECARS,
        SIDECARS * RINGS,
        RANK_INTERVAL,
        took,
        steps * (cluster_points + SIDECARS * RINGS * (rank_points - PIPELINE)),
        steps * (cluster_points + SIDECARS * RINGS * rank_points),
        counted,
        (after[0] - before[0]) / max(1, counted) * 1e6,
        (after[1] - before[1]) / max(1, counted) * 1e6,
    )
