"""The ways in which loaders mix, and the history of a job whose ranks mix so: meters, records and reader are the real
ones, only the processes are missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from otel_train.catalogue import MIXING, Layout
from otel_train.mixing import MixingMeter
from otel_train.read.history import History, Track
from otel_train.read.interval_picks import IntervalPicks

Batches = Iterator[list[list[int]]]
"""The batch of each rank, step by step: the source of each row."""
Scheme = Callable[[random.Random, Sequence[float], int, int], Batches]
"""Takes a generator, the real shares of the sources, ranks, and rows in a rank's batch."""


def independent_rows(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
    """Draw each row of each rank by itself."""
    while True:
        yield [rng.choices(range(len(real)), real, k=rows) for _ in range(ranks)]


def in_groups(size: int) -> Scheme:
    """Return a scheme in which each `size` ranks draw the same rows; those of a group stand apart."""

    def scheme(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
        groups = max(1, ranks // size)
        for drawn in independent_rows(rng, real, groups, rows):
            yield [drawn[rank % groups] for rank in range(ranks)]

    return scheme


def alike_ranks(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
    """Draw each row once, for all ranks."""
    return in_groups(ranks)(rng, real, ranks, rows)


def alike_workers(workers: int) -> Scheme:
    """Return a scheme in which the workers of a rank draw the same rows, and take turns."""

    def scheme(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
        for drawn in independent_rows(rng, real, ranks, rows):
            for _ in range(workers):
                yield drawn

    return scheme


def one_source_a_batch(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
    """Draw the source of each rank's whole batch."""
    while True:
        yield [rng.choices(range(len(real)), real) * rows for _ in range(ranks)]


def one_source_a_global_batch(rng: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
    """Draw the source of all ranks' batches together."""
    while True:
        yield [rng.choices(range(len(real)), real) * rows] * ranks


def stratified(_: random.Random, real: Sequence[float], ranks: int, rows: int) -> Batches:
    """Deal the rows so that all ranks' batches together hold the shares, as near as whole rows can."""
    owed = [0.0] * len(real)
    while True:
        dealt: list[int] = []
        while len(dealt) < ranks * rows:
            owed = [due + share for due, share in zip(owed, real, strict=True)]
            source = max(range(len(real)), key=lambda index: owed[index])
            owed[source] -= 1
            dealt.append(source)
        dealt.sort()  # so that no rank holds the shares by itself
        yield [dealt[rank * rows : (rank + 1) * rows] for rank in range(ranks)]


def mixed_job(
    scheme: Scheme,
    *,
    weights: Mapping[str, float],
    real: Sequence[float] | None = None,
    ranks: int = 2,
    rows: int = 8,
    steps: int = 100,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> History:
    """Return the history of a job.

    Args:
        scheme: How its loaders mix.
        weights: The weight of each source that the meters are given.
        real: The shares by which the loaders mix; the meters' by default.
        ranks: Number of ranks.
        rows: Rows in a rank's batch.
        steps: Steps, each of which is a log step.
        seed: Seed of all draws.
        options: Further arguments of the meters.
    """
    meters = [MixingMeter(len(weights), tuple(weights), weights, **(options or {})) for _ in range(ranks)]
    for meter in meters:
        for slot, name in enumerate(weights):
            meter.open(slot, name)
    layout = Layout(MIXING, tuple(weights))
    whole = sum(weights.values())
    history = History("a simulation", "run", world_size=ranks, modalities=tuple(weights), facts=dict(meters[0].facts))
    history.ranks = {rank: Track() for rank in range(ranks)}
    intervals = IntervalPicks()
    batches = scheme(random.Random(seed), real or [weight / whole for weight in weights.values()], ranks, rows)
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        drained = []
        for rank, (meter, sources) in enumerate(zip(meters, batch, strict=True)):
            if history.facts["mixing.unit"] == "batch":
                meter.pick(sources[0], rows=len(sources))
            else:
                for source in sources:
                    meter.pick(source)
            history.facts |= meter.facts
            values = meter.drain_measurements(step)
            sums, peaks = values[: layout.sums], values[layout.sums :]
            drained.append((sums, peaks))
            history.ranks[rank].add(step, step, layout.by_key(sums, peaks))
            intervals.add(rank, step, layout, sums, history.facts)
        sums = [sum(column) for column in zip(*(sums for sums, _ in drained), strict=True)]
        candidates = [peaks[0] for _, peaks in drained]
        peak = max(candidates)
        history.cluster.add(step, step, layout.by_key(sums, [peak], [float(candidates.index(peak))]))
    history.mix, history.order_groups = intervals.joined()
    return history
