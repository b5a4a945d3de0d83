"""Section 9: what grows with the number of ranks, up to 10,000.

A rank's CPU time for a logged step is measured with torch's fake process group of that size: the collective moves
nothing, everything of ours is real, and what a real one would have left in the vector is put there between launch and
harvest, untimed. Rank 0 unpacks all values, the other ranks look at the header. What arrives at the collector is
counted on simulated nodes: see `benchmarks.flood`.

    python -m benchmarks scale
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks import flood
from benchmarks.builds import BASELINE, baseline
from benchmarks.fresh import ROOT, clean_environment, only_of
from benchmarks.measure import Figures, Goal, Section
from otel_train.step.packing import Packed
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer

WORLD_SIZES = (8, 64, 512, 1000, 4096, 10_000)
LIMITS = (40.0, 10.0)
"""Microseconds of CPU at the largest size: rank 0, and another."""
IN_FLIGHT = 4
ALONE = """
import json, statistics, sys
import torch
from benchmarks.scale import step_cost
torch.set_num_threads(1)
size, steps = map(int, sys.argv[1:])
print(json.dumps([statistics.median(step_cost(size, rank, steps)) for rank in (0, size - 1)]))
"""
"""Each checkout's own `step_cost`: it knows its own classes."""


def group_of(world_size: int, rank: int) -> RankGroup:
    """Return a rank's view of torch's fake process group, which must have been made."""
    handle = dist.distributed_c10d._get_default_group()  # noqa: SLF001
    return RankGroup(rank, world_size, rank, handle, tuple(range(world_size)))


def reduced_vector(reducer: Reducer, step: int) -> torch.Tensor:
    """Return what the ranks' vectors of a step add up to, each rank with peaks of its own."""
    plan = reducer.plan
    total = torch.zeros(plan.size, dtype=torch.float64)
    scratch: Packed | None = None
    for rank in range(plan.world_size):
        values = [1.0] * plan.sums + [float((rank * 7919 + index) % plan.world_size) for index in range(plan.peaks)]
        scratch = plan.pack(step, values, rank, scratch)
        total += scratch.vector
    return total


def step_cost(world_size: int, rank: int, steps: int) -> list[float]:
    """Return the microseconds of CPU time that each logged step takes one rank; rank 0 reads the values too."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        layout = flood.job_schema().layout()
        reducer = Reducer(layout, group_of(world_size, rank), max_in_flight=IN_FLIGHT, timeout=10.0)
        measured = Measurements(tuple(float(index) for index in range(layout.sums + 2 * layout.peaks)))
        arrived = reduced_vector(reducer, 1)
        clock, times = time.thread_time_ns, []
        newest = None
        for _ in range(steps):
            begin = clock()
            reducer.launch(1, 0, measured)
            launched = clock()
            reducer._flights[-1].packed.vector.copy_(arrived)  # noqa: SLF001  # what the collective would have done
            landed = clock()
            (newest,) = reducer.harvest()
            assert rank or len(newest.values) == layout.sums + 2 * layout.peaks
            times.append((clock() - landed + launched - begin) / 1000)
        assert newest is not None
        assert newest.values[layout.sums] == world_size - 1
        return times
    finally:
        dist.destroy_process_group()


def cost(world_size: int, rank: int, rounds: int, steps: int) -> Figures:
    """Return a rank's figures, a median a round."""
    return Figures([statistics.median(step_cost(world_size, rank, steps)) for _ in range(rounds)])


def run(*, quick: bool) -> Section:
    """Measure every size, and the collector."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun has it where nobody says otherwise
    try:
        rounds, steps = (2, 30) if quick else (7, 300)
        first = {size: cost(size, 0, rounds, steps) for size in WORLD_SIZES}
        others = {size: cost(size, size - 1, rounds, steps) for size in WORLD_SIZES}
    finally:
        torch.set_num_threads(threads)
    rows, curves = grown(first, others)
    largest = WORLD_SIZES[-1]
    ours, base = beside_baseline(largest, *((1, 30) if quick else (5, 300)))
    section = Section(
        number=9,
        title="Growth with the number of ranks",
        how=(
            "torch's fake process group, one thread; CPU time of launch, harvest and (rank 0) unpacking, the result "
            "put into the vector untimed; the median of the rounds' medians, with their 5th to 95th percentile. Points "
            f"at the defaults: a log step a second, ranks' own values every {flood.RANK_SECONDS:.0f} s. "
            f"The goals' figures are of other processes, this build's and {BASELINE}'s in turn."
        ),
        unit="µs",
        goals=[
            Goal(
                f"{who}: at most {limit:.0f} µs of CPU a logged step at {largest:,} ranks",
                f"{own.median:.1f} µs ({BASELINE}: {before.median:.1f}, {before.ratio(own)[0]:.1f}x)",
                own.median <= limit,
            )
            for who, limit, own, before in zip(("rank 0", "another rank"), LIMITS, ours, base, strict=True)
        ],
        notes=list(limits()),
        tables=[rows],
        curves=curves,
    )
    seen = flood.flood(seconds=5.0 if quick else 30.0)
    if seen is None:
        section.notes.append("The points are not confirmed: the real collector is not to be had here.")
    else:
        text = "every point of the simulated ranks is accepted by the real collector"
        counted = (
            f"{seen.accepted:,}; {seen.expected:,} of values, at most {seen.most - seen.expected:,} of the pipeline"
        )
        section.goals.append(Goal(text, counted, seen.expected <= seen.accepted <= seen.most))
        section.notes.append(extrapolated(seen))
    return section


def beside_baseline(world_size: int, rounds: int, steps: int) -> tuple[list[Figures], list[Figures]]:
    """Return the figures of rank 0 and of another rank, of this build and of the baseline: new processes in turn."""
    medians: dict[Path, list[list[float]]] = {}
    with baseline() as root:
        for _ in range(rounds):
            for checkout in (ROOT, root):
                environment = clean_environment(only_of(checkout))
                command = [sys.executable, "-c", ALONE, str(world_size), str(steps)]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
                medians.setdefault(checkout, []).append(json.loads(done.stdout))
    ours, base = ([Figures(list(taken)) for taken in zip(*rows, strict=True)] for rows in medians.values())
    return ours, base


def points_a_second(world_size: int) -> float:
    """Return the data points that a job at the defaults sends in a second."""
    cluster, own = flood.points_of_a_record()
    return cluster / flood.LOG_SECONDS + world_size * own / flood.RANK_SECONDS


def grown(
    first: dict[int, Figures], others: dict[int, Figures]
) -> tuple[list[list[str]], dict[str, list[tuple[float, float]]]]:
    """Return the table and the curves, from the CPU time of rank 0 and of another rank."""
    layout = flood.job_schema().layout()
    rows = [["ranks", "rank 0, µs", "another rank, µs", "vector", "sent by a rank", "memory of a rank", "points/s"]]
    curves: dict[str, list[tuple[float, float]]] = {}
    for size in WORLD_SIZES:
        vector = 8 * (3 + layout.sums + size * layout.peaks)
        wire, points = 2 * (size - 1) / size * vector, points_a_second(size)
        shown = [
            f"{figures.median:.1f} ({figures.spread[0]:.1f} to {figures.spread[1]:.1f})"
            for figures in (first[size], others[size])
        ]
        rows.append([f"{size:,}", *shown, *map(in_bytes, (vector, wire, (IN_FLIGHT + 1) * vector)), f"{points:,.0f}"])
        for name, value in {
            "rank 0, µs of CPU a logged step": first[size].median,
            "another rank, µs of CPU a logged step": others[size].median,
            "sent by a rank a logged step, KiB": wire / 1024,
            "points a second at the collector": points,
        }.items():
            curves.setdefault(name, []).append((size, value))
    return rows, curves


def limits() -> Iterator[str]:
    """Yield what grows, and what else."""
    layout, largest = flood.job_schema().layout(), WORLD_SIZES[-1]
    cluster, own = flood.points_of_a_record()
    schema = len(flood.schema_json())
    yield (
        f"The vector has {layout.sums} sums, and {layout.peaks} peaks for each rank: {8 * layout.peaks} bytes more for "
        "each rank more, which every rank zeroes, which a ring all-reduce sends 2 (n - 1) / n times, and which rank 0 "
        f"looks through. The memory is that of {IN_FLIGHT} reductions under way and one landed. All of it is "
        "touched, so at 10,000 ranks it is the "
        "memory's speed that limits a step, and soon after that a logged step's 1 MB on the wire."
    )
    yield (
        "What is left on another rank: a collective in place leaves it the others' numbers, which it must zero before "
        "it packs again (8 µs for 490 KB that its own cache still has, 15 to 40 µs where another core wrote them), the "
        "backend's call, and Python whose own cache lines the vector has taken. Tried: memory that the kernel zeroes "
        "takes the training thread 9 µs (madvise) or 11 µs (a new mapping), and the collective's thread 100 to 130 µs "
        "of page faults; the watcher's thread would take a wake-up and the GIL, which is judged to be more. Not tried, "
        "since a log step is one collective: sums by all_reduce and peaks by all_gather, with nothing to zero and half "
        "of the bytes."
    )
    yield (
        "Once a job: each rank gathers and reads every rank's run id, host and schema, the schema alone "
        f"{schema / 1024:.1f} KiB of JSON, so {schema * largest / 2**20:.0f} MiB on each rank of {largest:,}."
    )
    yield (
        f"A job at the defaults: {cluster} points a log step from rank 0, and {own} from each rank every "
        f"{flood.RANK_SECONDS:.0f} s, as the sidecar's own builder counts them."
    )


def extrapolated(seen: flood.Flood) -> str:
    """Return what a collector would have to do for the largest job."""
    largest = WORLD_SIZES[-1]
    points = points_a_second(largest)
    return (
        f"Counted at a real collector: {seen.rings} rings on {seen.sidecars} sidecars, a record a second each and all "
        f"of them exported, brought {seen.accepted / seen.seconds:,.0f} points a second for {seen.seconds:.0f} s, at "
        f"{seen.collector_us:.1f} µs of the collector's CPU a point and {seen.sidecar_us:.0f} µs of a sidecar's. "
        f"So {largest:,} ranks with {points:,.0f} points a second take {points * seen.collector_us / 1e6:.1%} of a "
        "core at one collector, before what its exporters do."
    )


def in_bytes(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1024:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"
