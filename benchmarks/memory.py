"""Measure what telemetry holds of a rank's memory, beside the same loop without it, and whether that grows."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import cast

from benchmarks.fresh import output_of_rank
from benchmarks.measure import Figures, Goal, Section

NONE = "none"
OURS = "otel_train"
OVER = "otel_train over none, process by process"
LIMIT = 8.0
GROWTH = 0.25
"""Megabytes of growth that are still flat: a few of the allocator's arenas of pages."""
Held = dict[str, int]


def run(*, quick: bool) -> Section:
    """Measure."""
    pairs, short = (2, 5_000) if quick else (7, 20_000)
    long = 20_000 if quick else 1_000_000
    figures: dict[str, list[float]] = {NONE: [], OURS: [], OVER: []}
    ring: list[float] = []
    for _ in range(pairs):
        base, with_it = (_rank(name, short, short)[0] for name in (NONE, OURS))
        figures[NONE].append(base["Rss"] / 1024)
        figures[OURS].append(with_it["Rss"] / 1024)
        figures[OVER].append((with_it["Rss"] - base["Rss"]) / 1024)
        ring.append((with_it["Pss_Shmem"] - base["Pss_Shmem"]) / 1024)
    every = long // 10
    grown = {name: _rank(name, long, every) for name in (NONE, OURS)}
    steps = [number * every for number in range(1, 11)]
    over, pages = statistics.median(figures[OVER]), statistics.median(ring)
    growth = (grown[OURS][-1]["Rss"] - grown[OURS][0]["Rss"]) / 1024
    return Section(
        number=10,
        title="A rank's memory",
        how=(
            f"Processes that have imported torch and run the same loop of {short:,} steps, one after the other without "
            f"telemetry and with it (15 headline values' meter and a loss, log_every=1), {pairs} times; resident "
            "memory by /proc/self/smaps_rollup. The pages of the ring (4096 records, in /dev/shm) count as the rank's. "
            "The sidecar, one process for each node, is not in it: this one has no rank. Then one process each for "
            f"{long:,} steps."
        ),
        unit="MB",
        figures={name: Figures(values) for name, values in figures.items()},
        ours=OURS,
        goals=[
            Goal(f"<= {LIMIT:.0f} MB over none", f"{over:.2f} MB, {pages:.2f} of them the ring", over <= LIMIT),
            Goal(f"flat over {long:,} steps (<= {GROWTH} MB)", f"{growth:+.2f} MB", growth <= GROWTH),
        ],
        tables=[
            [
                ["MB after", NONE, OURS, "the ring's part of it"],
                *(
                    [
                        f"{step:,} steps",
                        *(f"{held['Rss'] / 1024:.2f}" for held in row),
                        f"{row[1]['Pss_Shmem'] / 1024:.2f}",
                    ]
                    for step, row in zip(steps, zip(grown[NONE], grown[OURS], strict=True), strict=True)
                ),
            ]
        ],
    )


def _rank(what: str, steps: int, every: int) -> list[Held]:
    """Return what a process held at each `every`th step."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        environment = {"OTEL_TRAIN_SIDECAR": "external", "OTEL_TRAIN_RING_DIR": folder}
        return cast(list[Held], output_of_rank(environment, "memory", what, str(steps), str(every)))
