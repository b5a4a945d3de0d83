"""Measure what it costs the training loop to count a batch by its rows' tags, beside a pick for each row."""

from __future__ import annotations

import random

import torch

import otel_train
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Goal, Section, Step, take_turns
from otel_train.mixing import pack_tag

NOTHING = "nothing (the loop)"
OURS = "SourceMeter.count, 4096 rows"
MIDDLE = "SourceMeter.count, 256 rows"
SMALL = "SourceMeter.count, 8 rows"
PICKS = "MixingMeter.pick for each of 4096 rows"
SOURCES = {"code": 1.0, "prose": 3.0, "web": 4.0, "math": 0.5}


def counted(rows: int) -> Step:
    """Return the count of a batch of so many rows of four sources, as torch's default collate makes it."""
    meter = otel_train.SourceMeter(SOURCES)
    names = random.Random(0).choices(list(SOURCES), weights=list(SOURCES.values()), k=rows)
    words = torch.tensor([pack_tag(name, tokens=512) for name in names])
    batch = {"x": torch.zeros(rows), "otel_train": words}

    def step(number: int) -> None:
        meter.count(batch)
        if number % 10 == 0:
            meter.drain_measurements()

    return step


def picked(rows: int) -> Step:
    """Return a pick for each row, as a loop without tags makes it."""
    meter = otel_train.MixingMeter(len(SOURCES), list(SOURCES), SOURCES)
    for slot, name in enumerate(SOURCES):
        meter.open(slot, name)
    slots = random.Random(0).choices(range(len(SOURCES)), weights=list(SOURCES.values()), k=rows)

    def step(number: int) -> None:
        for slot in slots:
            meter.pick(slot, tokens=512)
        if number % 10 == 0:
            meter.drain_measurements()

    return step


def run(*, quick: bool) -> Section:
    """Measure."""
    return in_fresh_process({"OMP_NUM_THREADS": "1"}, _measure, quick=quick)


def _measure(*, quick: bool) -> Section:
    contenders: dict[str, Step] = {
        NOTHING: lambda _step: None,
        OURS: counted(4096),
        MIDDLE: counted(256),
        SMALL: counted(8),
        PICKS: picked(4096),
    }
    rounds, steps = (5, 20) if quick else (100, 50)
    figures = take_turns(contenders, rounds=rounds, steps=steps, less=NOTHING)
    ours = figures[OURS]
    return Section(
        number=13,
        title="A batch counted by its tags",
        how=(
            f"Rows of four sources with tags, a drain each tenth batch, {rounds} rounds of {steps} batches of each in "
            "turn (of the slow ones as many as 20 ms hold), in one process with one thread of torch's, as torchrun "
            "sets it. The loop's own cost is taken off the others."
        ),
        unit="µs",
        figures=figures,
        ours=OURS,
        goals=[Goal("4096 rows: median <= 150 µs", f"{ours.median:.0f} µs", ours.median <= 150)],
        notes=[
            "Up to 128 rows are added up by a loop in Python, more by operations of torch: that is where they meet."
        ],
    )
