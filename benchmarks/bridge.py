"""Rows a second that the bridge brings to wandb, beside a loop that only calls `wandb.log` with the same rows.

The real service, `otel-train bridge`, gets requests over OTLP/gRPC as a sidecar with a backlog sends them; a row counts
when it is durable: in the inbox, in wandb's file, read back and synced. The loop runs in a process of its own and ends
with the run's finish, which leaves the rows with the kernel.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from benchmarks.measure import Figures, Goal, Section
from benchmarks.processes import HOST, environment, python, running
from otel_train.bridge import delivered_steps, read_run
from otel_train.catalogue import HEADLINE, Metric
from otel_train.ring import Identity, Schema
from otel_train.sidecar.feed import BATCH_RECORDS
from otel_train.sidecar.points import Origin, PointBuilder
from tests.support.ports import free_port
from tests.support.waiting import wait_until

SCALARS = ("train/loss", "train/lr", "train/grad_norm")
SCHEMA = Schema((*HEADLINE, *map(Metric, SCALARS)), ("code", "prose"))
RUN_ID = "bench"
SHARE = 0.7
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
TITLE = "bridge: rows a second to wandb offline"
OURS, LOOP = "otel-train bridge, requests to durable rows", "wandb.log(row, step=n) and finish, nothing else"


def requests(first: int, last: int, batch: int) -> list[bytes]:
    """Return requests of so many steps each, as a sidecar sends them."""
    layout, numbers = SCHEMA.layout(), random.Random(first)
    origin = Origin(Identity(run_id=RUN_ID, attempt=1), layout)
    totals, begin = [0.0] * layout.sums, time.time_ns()
    made = []
    for start in range(first, last + 1, batch):
        builder = PointBuilder(origin)
        for step in range(start, min(start + batch, last + 1)):
            sums = [float(numbers.randrange(1, 1000)) for _ in range(layout.sums)]
            peaks = [float(numbers.randrange(1, 1000)) for _ in range(layout.peaks)]
            totals = [total + value for total, value in zip(totals, sums, strict=True)]
            values = sums + peaks + [0.0] * layout.peaks
            builder.add_cluster(step, begin + step * 10_000_000, values, totals, ordinal=step)
        request = ExportMetricsServiceRequest()
        builder.write(request.resource_metrics.add())
        made.append(request.SerializeToString())
    return made


def bridge(home: Path, warm: Sequence[bytes], load: Sequence[bytes], rows: int) -> float:
    """Return the seconds from the first request until all rows are durable; the run is open before."""
    address, state = f"{HOST}:{free_port()}", home / "state"
    command = python("otel_train", "bridge", f"--listen={address}", f"--state={state}")
    with running(command, home / "bridge.log", environment()) as program, grpc.insecure_channel(address) as channel:
        wait_until((state / "address").exists, 60, "the bridge's start", log=program.log)
        export: Callable[..., bytes] = channel.unary_unary(EXPORT, bytes, bytes)
        for request in warm:
            export(request, timeout=60, wait_for_ready=True)
        wait_until(lambda: delivered_steps(state, RUN_ID) == 1, 60, "the first row", log=program.log)
        begin = time.perf_counter()
        for request in load:
            export(request, timeout=60)
        wait_until(lambda: delivered_steps(state, RUN_ID) == rows + 1, 600, "the rows", log=program.log, pause=0.1)
        return time.perf_counter() - begin


def loop(home: Path, rows: Path) -> float:
    """Return the seconds of the bare loop."""
    command = python("benchmarks.wandb_loop", str(rows), str(home))
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, rows = (1, 2_000) if quick else (3, 10_000)
    warm, load = requests(1, 1, 1), requests(2, rows + 1, BATCH_RECORDS)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        logged = Path(name) / "rows.json"
        values = 0
        for number in range(rounds):
            home = Path(name) / str(number)
            home.mkdir()
            ours.append(rows / bridge(home, warm, load, rows))
            if not number:
                history = [row.values for row in read_run(home / "state", RUN_ID)]
                assert len(history) == rows + 1, len(history)
                values = len(history[-1])
                logged.write_text(json.dumps(history))
            theirs.append(rows / loop(home, logged))
    section = Section(
        7,
        TITLE,
        f"{rows:,} rows of {values} values: the headline's with their siblings, {len(SCALARS)} scalars and the step, "
        f"in requests of {BATCH_RECORDS} steps, as a sidecar sends a backlog; each request after the one before is "
        "acknowledged. All at the defaults. Both have their run open and one row written before the clock starts.",
        "rows/s",
        {OURS: Figures(ours), LOOP: Figures(theirs)},
        OURS,
    )
    section.notes = [
        (
            "Two cores are full in the loop: a row takes a quarter of a millisecond in wandb's Python and a fifth in "
            "wandb-core. In the bridge two thirds of its process' time are wandb's Python too; decoding and the inbox "
            "are an eighth each, reading the file back a thirtieth. All of that shares one interpreter, so that the "
            "loop keeps an advantage although both take as much of the processor."
        ),
        (
            "What made it faster: a row in the transaction that takes its points (a third less of the inbox), one pass "
            "over a point's fields (half of the decoding), rows dropped in spans and without a wait for the disk, and "
            "wandb's reports on itself left out, which cost a tenth of `run.log`. Not done: decoding in the core, "
            "which could give the remaining eighth, and wandb in a process of its own, which needs a third core."
        ),
    ]
    share = 1 / section.figures[LOOP].ratio(section.figures[OURS])[0]
    section.goals = [Goal(f">= {SHARE}x of the bare loop's", f"{share:.2f}x", share >= SHARE)]
    return section
