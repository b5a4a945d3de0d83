"""Section 4: what a logged step's reduction over the ranks costs the training thread, on four gloo ranks.

Ours is `Reducer.launch` and, once it has landed, `Reducer.harvest` and (on the rank that emits) reading the values; the
peers are a bare asynchronous `all_reduce` of as many float64, a blocking `all_reduce` with `.item()` for each of the 15
headline values as torchtitan does for its own, and torchmetrics' sync of the same 15. How many collectives a step of
each takes is counted by the profiler. Between two steps every asynchronous contender waits, untimed, until its
reduction has landed, as a training step leaves it the time to.

    python -m benchmarks reduction
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from torchmetrics import MaxMetric, MeanMetric, Metric, MetricCollection, SumMetric

from benchmarks.measure import Figures, Goal, Section
from benchmarks.ranks import run_ranks, write
from otel_train.catalogue import BY_NAME, HEADLINE_KEYS, MAX_SUFFIX, Reduction
from otel_train.ledger import LedgerMeter
from otel_train.mixing import MixingMeter
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements, Recorder
from otel_train.step.reduction import Reducer

RANKS = 4
OURS, BARE = "otel_train, asynchronous", "bare asynchronous all_reduce of the same size"
BLOCKING, SEPARATE, METRICS = "otel_train, blocking=True", "15 blocking all_reduces with .item()", "torchmetrics, 15"
FASTER, LONGEST = 8.0, 1.3
PAUSE = 0.0003
COUNTED = 5
"""Steps that are run under the profiler."""


class Contender(Protocol):
    """One way to reduce a step; `begin` and `end` are timed, what happens between them is not."""

    def begin(self, step: int) -> None:
        """Begin the reduction of a step."""

    def landed(self) -> bool:
        """Tell whether it is complete."""

    def end(self) -> None:
        """Take the result."""


class Ours:
    """The session's reducer, without the drain before it and the ring after it."""

    def __init__(self, *, blocking: bool = False) -> None:
        meter = MixingMeter(4, ["code", "prose"], {"code": 1.0, "prose": 1.0})
        for slot in range(4):
            meter.open(slot, ("code", "prose")[slot % 2])
            meter.pick(slot)
        recorder = Recorder([meter, LedgerMeter(1024)], ())
        self.group = RankGroup.of(None, own=True)
        self.reducer = Reducer(recorder.layout, self.group, max_in_flight=4, timeout=60.0)
        self.measured = Measurements(recorder.drain(1, (0.001, 1, 0.0)))
        self.blocking = blocking

    def begin(self, step: int) -> None:
        """Pack and launch; wait for the values where a session would."""
        self.reducer.launch(step, 0, self.measured)
        if self.blocking:
            (reduced,) = self.reducer.finish(60.0)
            assert reduced.values

    def landed(self) -> bool:
        """Tell whether it is complete."""
        return self.reducer.settled

    def end(self) -> None:
        """Harvest; only rank 0 has a use for the values."""
        for reduced in self.reducer.harvest():
            assert not self.group.emits or reduced.values


class Bare:
    """The least that a reduction needs: the collective itself, and the look whether it is complete."""

    def __init__(self, size: int) -> None:
        self.group = RankGroup.of(None, own=True).handle
        self.vector = torch.zeros(size, dtype=torch.float64)
        self.work: Any = None

    def begin(self, _: int) -> None:
        """Launch."""
        self.work = dist.all_reduce(self.vector, group=self.group, async_op=True)

    def landed(self) -> bool:
        """Tell whether it is complete."""
        return bool(self.work.is_completed())

    def end(self) -> None:
        """Ask once more, as a caller must who did not wait, and take it."""
        if self.work.is_completed():
            self.work.wait()


class Waiting:
    """A contender that waits for its result itself."""

    def __init__(self, reduce: Callable[[], object]) -> None:
        self.reduce = reduce

    def begin(self, _: int) -> None:
        """Do all of it."""
        self.reduce()

    def landed(self) -> bool:
        """It is."""
        return True

    def end(self) -> None:
        """Nothing is left."""


def separate() -> None:
    """Reduce 15 numbers as torchtitan does its loss: a tensor, a collective and an `.item()` each."""
    for number in range(len(HEADLINE_KEYS)):
        value = torch.tensor(float(number))
        dist.all_reduce(value)
        value.item()


def torchmetrics_sync() -> Callable[[], object]:
    """Return the sync of 15 metrics of the kinds that ours are; the update is not part of it."""
    rows = {row.wandb_key: row for row in BY_NAME.values()}
    kinds = {Reduction.SUM: SumMetric, Reduction.MAX: MaxMetric}
    made: dict[str, Metric | MetricCollection] = {
        key.replace("/", "_"): MaxMetric() if key.endswith(MAX_SUFFIX) else kinds.get(rows[key].reduction, MeanMetric)()
        for key in HEADLINE_KEYS
    }
    collection = MetricCollection(made, compute_groups=False)
    for metric in collection.values():
        metric.update(1.0)

    def sync() -> None:
        for metric in collection.values():
            metric.sync()
            metric.unsync()

    return sync


def timed(contender: Contender, first: int, steps: int) -> list[int]:
    """Return the nanoseconds that each step took of the caller's time."""
    clock, times = time.perf_counter_ns, []
    for step in range(first, first + steps):
        begin = clock()
        contender.begin(step)
        begun = clock()
        while not contender.landed():
            time.sleep(PAUSE)
        time.sleep(PAUSE)
        landed = clock()
        contender.end()
        times.append(clock() - landed + begun - begin)
    return times


def collectives(contender: Contender, first: int) -> float:
    """Return how many collectives gloo was given for a step."""
    with profile(activities=[ProfilerActivity.CPU]) as recording:
        timed(contender, first, COUNTED)
    seen = Counter(event.name for event in recording.events() or ())
    return sum(count for name, count in seen.items() if name.startswith("gloo:")) / COUNTED


def main(folder: str, rounds: str, steps: str) -> None:
    """Be one rank: let the contenders take turns, count their collectives, and write what was seen."""
    dist.init_process_group("gloo")
    ours = Ours()
    contenders: dict[str, Contender] = {
        OURS: ours,
        BARE: Bare(ours.reducer.plan.size),
        BLOCKING: Ours(blocking=True),
        SEPARATE: Waiting(separate),
        METRICS: Waiting(torchmetrics_sync()),
    }
    times: dict[str, list[list[int]]] = {name: [] for name in contenders}
    # Each counts its own: a step that a rank does not come to is made up for, which is one more collective.
    next_steps = dict.fromkeys(contenders, 1)
    for number in range(int(rounds) + 1):
        for name, contender in contenders.items():
            dist.barrier()
            taken = timed(contender, next_steps[name], int(steps) if name in (OURS, BARE) else -(-int(steps) // 5))
            next_steps[name] += len(taken)
            if number:  # the first round warms up
                times[name].append(taken)
    counts = {}
    for name, contender in contenders.items():
        dist.barrier()
        counts[name] = collectives(contender, next_steps[name])
    assert counts[OURS] == counts[BLOCKING] == 1.0, counts
    write(folder, {"times": times, "collectives": counts, "size": ours.reducer.plan.size})
    dist.destroy_process_group()


def run(*, quick: bool) -> Section:
    """Measure on four ranks."""
    seen = run_ranks("benchmarks.reduction", RANKS, *((2, 10) if quick else (25, 60)))
    figures = {f"{OURS}, rank 0": of_ranks(seen, OURS, [0]), f"{OURS}, ranks 1 to 3": of_ranks(seen, OURS, [1, 2, 3])}
    figures |= {f"{BARE}, rank 0": of_ranks(seen, BARE, [0]), f"{BARE}, ranks 1 to 3": of_ranks(seen, BARE, [1, 2, 3])}
    figures |= {name: of_ranks(seen, name, [0]) for name in (BLOCKING, SEPARATE, METRICS)}
    ours, others = figures[f"{OURS}, rank 0"], figures[f"{OURS}, ranks 1 to 3"]
    counts = seen[0]["collectives"]
    first = ours.ratio(figures[f"{BARE}, rank 0"])[0]
    rest = others.ratio(figures[f"{BARE}, ranks 1 to 3"])[0]
    faster, waiting = figures[SEPARATE].ratio(ours)[0], figures[SEPARATE].ratio(figures[BLOCKING])[0]
    return Section(
        number=4,
        title="A logged step's reduction",
        how=(
            f"{RANKS} gloo ranks under torchrun, {seen[0]['size']} float64. The caller's time of a step: launch, and "
            "harvest once it has landed; on rank 0 the values are read too. The other contenders wait for their result."
        ),
        unit="µs",
        figures=figures,
        ours=f"{OURS}, rank 0",
        goals=[
            Goal("exactly one collective a logged step", f"{counts[OURS]:.0f}", counts[OURS] == 1.0),
            Goal(
                f"at least {FASTER:.0f}x less time than {SEPARATE}",
                f"{faster:.0f}x; {waiting:.1f}x with blocking=True, which waits too",
                faster >= FASTER,
            ),
            Goal(f"at most {LONGEST}x of a {BARE}, rank 0", f"{first:.2f}x", first <= LONGEST),
            Goal(f"at most {LONGEST}x of it on the other ranks", f"{rest:.2f}x", rest <= LONGEST),
        ],
        notes=[
            "Collectives a step: " + ", ".join(f"{name} {count:g}" for name, count in counts.items()) + ".",
            "Rank 0 reads each reduction's values, which go into its ring; over several runs 1.25x to 1.45x.",
            (
                "Tried and kept: packing and reading as bytes (a tensor made of a list takes 8 µs), reading only where "
                "somebody looks, and the process group's own call without the checks of torch.distributed's, which "
                "take as long as all the rest. The core packs and reads the vector in a third of a microsecond each; "
                "in Python these take 4 and 6. What is left is the backend's call and Python's objects around it."
            ),
        ],
    )


def of_ranks(seen: list[Any], name: str, ranks: list[int]) -> Figures:
    """Return a contender's figures in microseconds, a round's from the steps of some ranks together."""
    rounds = zip(*(seen[rank]["times"][name] for rank in ranks), strict=True)
    together = [sorted(taken for times in blocks for taken in times) for blocks in rounds]
    return Figures(
        [statistics.median(times) / 1000 for times in together],
        [times[int(0.99 * len(times))] / 1000 for times in together],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
