"""Measure a step behind a real training step, where its code and data have left the caches, beside builds and peers.

Each contender is a process of its own; they take turns in short blocks. What a step comes behind is a small torch
training step, a millisecond of Python, or nothing (a tight loop).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from benchmarks import report
from benchmarks.builds import BASELINE, Contender, baseline, running, take_turns, training_core
from benchmarks.measure import Figures, Goal, Section

NOTHING = "nothing (reading the clock)"
FLOOR = "the floor: a dict and two calls into C"
OURS = "otel_train: pick + telemetry.step, a loss"
PURE = "otel_train, its twins in Python"
BASE = f"otel_train at {BASELINE}"
PEERS = {
    "sdk": "OTel SDK, 15 gauges",
    "prometheus_client": "prometheus_client, 15 gauges",
    "wandb": "wandb.log offline, 15 values",
    "traceml": "TraceML, trace_step",
}
LESS = {"sdk": 40, "prometheus_client": 4, "wandb": 200, "traceml": 30}
"""How many times less than each peer ours should take."""
LESS_THAN_BASE, OVER_NOTHING = 8, 5.0
IN_LOOP = {4: 1.0, 64: 1.5}
"""Goal in microseconds by readers (K)."""


def builds(root: Path) -> dict[str, Contender]:
    """Return nothing, this build, its twins in Python and the baseline in `root`, alike in all else."""
    core, environment = training_core(), {"OTEL_TRAIN_SIDECAR": "external"}
    return {
        NOTHING: Contender(name="nothing", core=core),
        FLOOR: Contender(name="floor", core=core),
        OURS: Contender(name="otel_train", environment=environment, core=core),
        PURE: Contender(name="otel_train", environment={**environment, "OTEL_TRAIN_PURE": "1"}, core=core),
        BASE: Contender(name="otel_train", root=root, environment=environment, core=core),
    }


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, steps, loops = (4, 10, 50) if quick else (40, 20, 100)
    with baseline() as root:
        peers = {label: Contender(name=name, core=training_core()) for name, label in PEERS.items()}
        with running(builds(root) | peers) as processes:
            ran = processes[OURS].implementation
            torch = take_turns(processes, "torch", rounds=rounds, steps=steps, less=NOTHING)
            python = take_turns(processes, "python", rounds=rounds, steps=steps, less=NOTHING)
            loop = {4: take_turns(processes, "loop", rounds=rounds, steps=loops, less=NOTHING)}
            ours = {label: processes[label] for label in builds(root)}
            loop[64] = take_turns(ours, "loop", rounds=rounds, steps=loops, less=NOTHING, readers=64)
    return Section(
        number=15,
        title="A step behind a real training step",
        how=(
            "The figures are of the telemetry alone, behind a training step in torch: six linear layers of 256, 64 "
            "rows, forward, backward and SGD, on one thread. K=4 readers, one pick a step, one rank, the ring in "
            f"memory, nothing sent. Each contender is a process of its own; they take turns, {rounds} blocks of "
            f"{steps} steps ({loops} in the tight loop) of each, in an order that turns, after three steps that do not "
            "count; the others wait for a line meanwhile. The training threads are bound to one core, the same for "
            "all; the threads and processes that a peer runs beside its own are not, and they run on while others are "
            "measured. What nothing takes, the "
            "clock's own cost, is taken off the others. "
            f"The baseline is {BASELINE}, run by the same interpreter with the same packages. Of this build the "
            f"{'core in C' if ran == 'native' else 'twins in Python'} ran. The second table is behind a millisecond of "
            "Python, the third in a tight loop, the fourth the same with K=64."
        ),
        unit="µs",
        figures=torch,
        ours=OURS,
        goals=goals(torch, loop),
        notes=[
            (
                f"The floor is what the user's own lines take whatever is behind them, {torch[FLOOR].median:.1f} µs "
                f"here: a goal of so many times less than a peer that comes below it can't be met. Ours is "
                f"{torch[OURS].ratio(torch[FLOOR])[0]:.1f}x of it."
            ),
            (
                "Where the machine is busy, p99 is mostly how often a step is interrupted, and long steps are so more "
                "often."
            ),
        ],
        tables=[
            table("behind 1 ms of Python", python),
            *(table(f"in a tight loop, K={readers}", figures) for readers, figures in loop.items()),
        ],
    )


def goals(torch: Mapping[str, Figures], loop: Mapping[int, Mapping[str, Figures]]) -> list[Goal]:
    """Return the goals, from the figures behind a torch step and, by readers, in the loop."""
    ours, base = torch[OURS], torch[BASE]
    less, tail, over = base.ratio(ours)[0], tail_ratio(base, ours), ours.median
    listed = [
        Goal(f"median at most 1/{LESS_THAN_BASE} of {BASELINE}'s", f"1/{less:.1f}", less >= LESS_THAN_BASE),
        Goal(f"p99 at most 1/{LESS_THAN_BASE} of {BASELINE}'s", f"1/{tail:.1f}", tail >= LESS_THAN_BASE),
        Goal(f"at most {OVER_NOTHING:.0f} µs over doing nothing", f"{over:.1f} µs", over <= OVER_NOTHING),
    ]
    for name, factor in LESS.items():
        ratio = torch[PEERS[name]].ratio(ours)[0]
        listed.append(Goal(f">= {factor}x less than {PEERS[name]}", f"{ratio:.1f}x", ratio >= factor))
    for readers, limit in IN_LOOP.items():
        taken, before = (loop[readers][label].median for label in (OURS, BASE))
        listed.append(
            Goal(
                f"in a tight loop, K={readers}: <= {limit} µs",
                f"{taken:.2f} µs ({BASELINE}: {before:.2f})",
                taken <= limit,
            )
        )
    return listed


def tail_ratio(theirs: Figures, ours: Figures) -> float:
    """Return how much more their 99th percentile is, the median over the pools of rounds."""
    return statistics.median(their / own for their, own in zip(theirs.p99s, ours.p99s, strict=True))


def table(where: str, figures: dict[str, Figures]) -> list[list[str]]:
    """Return a table of figures as the section's own has them."""
    (_, *header), *rows = report.table(Section(0, "", "", "µs", figures, OURS))
    return [[where, *header], *rows]
