"""Measure what a loss by source adds to a step, beside the loss alone and beside a mean for each source by hand."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import otel_train
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Goal, Section, Step, take_turns
from otel_train.mixing import pack_tag

SOURCES = {"code": 1.0, "prose": 3.0, "web": 4.0, "math": 0.5}
NAMES = tuple(SOURCES)
WHOLE = "telemetry.step with the loss, a float"
COUNTED = "the loss, a float, and SourceMeter.count of 64 rows"
TAGGED = "64 rows, SourceMeter.count, the sources by the tags"
GIVEN = "64 rows, by= int64 indices"
WEIGHTED = "64 rows with weights, by= int64 indices"
NAMED = "64 rows, by= names"
SUMS = "a mapping of source to (sum, count)"
MANY = "16,384 tokens of 64 rows with a mask, by= int64 indices"
BY_HAND = "the loss, and four means by masks and .item() as scalars"


class Batch:
    """The losses of rows of four sources."""

    def __init__(self, rows: int = 64, tokens: int = 256) -> None:
        drawn = random.Random(0).choices(range(4), weights=list(SOURCES.values()), k=rows)
        self.indices = torch.tensor(drawn)
        self.names = [NAMES[index] for index in drawn]
        self.tagged = {"otel_train": torch.tensor([pack_tag(name, tokens=tokens) for name in self.names])}
        self.losses = torch.rand(rows)
        self.weights = torch.randint(1, tokens, (rows,))
        self.by_token = torch.rand(rows, tokens)
        self.mask = torch.rand(rows, tokens) < 0.9
        self.sums = dict.fromkeys(NAMES, (2.0, 16))

    def by_hand(self) -> dict[str, float]:
        """Return what a loop without us computes, each mean brought to the host."""
        values = {"train/loss": self.losses.mean().item()}
        for index, name in enumerate(NAMES):
            chosen = self.losses[self.indices == index]
            if chosen.numel():
                values[f"loss of {name}"] = chosen.mean().item()
        return values


@contextlib.contextmanager
def session(
    folder: Path, by: Sequence[str] | str, meter: otel_train.SourceMeter | None = None
) -> Iterator[otel_train.Telemetry]:
    """Give a session of one rank that logs each step."""
    metrics = [otel_train.Scalar("train/loss", by=by)] if by else []
    sources = [] if meter is None else [meter]
    with otel_train.init(sources=sources, metrics=metrics, ring_dir=folder, close_timeout=0.0) as telemetry:
        yield telemetry


def run(*, quick: bool) -> Section:
    """Measure."""
    return in_fresh_process({"OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}, _measure, quick=quick)


def _measure(*, quick: bool) -> Section:
    batch = Batch()
    rounds, steps = (3, 10) if quick else (60, 200)
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))

        def made(name: str, by: Sequence[str] | str = NAMES, meter: Any = None) -> otel_train.Telemetry:
            return stack.enter_context(session(root / name, by, meter))

        counting, naming = otel_train.SourceMeter(SOURCES), otel_train.SourceMeter(SOURCES)
        whole, counted, tagged = made("whole", ""), made("counted", "", counting), made("tagged", "modality", naming)
        given, weighted, named, sums, many = map(made, ("given", "weighted", "named", "sums", "many"))
        by_hand = made("by_hand", "")

        def count(step: int) -> None:
            counting.count(batch.tagged)
            counted.step(step, {"train/loss": 2.5})

        def count_and_name(step: int) -> None:
            naming.count(batch.tagged)
            tagged.step(step, {"train/loss": batch.losses})

        contenders: dict[str, Step] = {
            WHOLE: lambda step: whole.step(step, {"train/loss": 2.5}),
            GIVEN: lambda step: given.step(step, {"train/loss": batch.losses}, by=batch.indices),
            COUNTED: count,
            TAGGED: count_and_name,
            WEIGHTED: lambda step: weighted.step(
                step, {"train/loss": otel_train.PerRow(batch.losses, batch.weights)}, by=batch.indices
            ),
            NAMED: lambda step: named.step(step, {"train/loss": batch.losses}, by=batch.names),
            SUMS: lambda step: sums.step(step, {"train/loss": batch.sums}),
            MANY: lambda step: many.step(
                step, {"train/loss": otel_train.PerRow(batch.by_token, batch.mask)}, by=batch.indices
            ),
            BY_HAND: lambda step: by_hand.step(step, batch.by_hand()),
        }
        figures = take_turns(contenders, rounds=rounds, steps=steps)
    added = figures[GIVEN].median - figures[WHOLE].median
    ratio, _, _ = figures[BY_HAND].ratio(figures[GIVEN])
    return Section(
        number=14,
        title="A loss by source",
        how=(
            f"Sessions of one rank with a ring each, a record each step, four sources, 64 rows a step; {rounds} rounds "
            f"of {steps} steps of each in turn (of the slow ones as many as 20 ms hold), in one process with one "
            "thread of torch's, as torchrun sets it."
        ),
        unit="µs",
        figures=figures,
        ours=GIVEN,
        goals=[
            Goal("64 rows by index add at most 50 µs", f"{added:.0f} µs", added <= 50),
            Goal("less than the means by hand", f"{ratio:.2f} of ours", ratio > 1),
        ],
        notes=["On a GPU: section 12, where it is logged beside the loss alone."],
    )
