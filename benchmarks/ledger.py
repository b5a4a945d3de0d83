"""Section 5: what a fetch and a store of the ledger cost beside the exchanges that they can't do without.

Two gloo ranks fetch and store 256 keys with states of 512 float32 a step. The peer is what a bare program would write
that keeps no ledger: the same keys, sorted by owner, travel, then the states, with `all_to_all_single` and uneven
splits, after the counts have; the keys once, as the ledger's do where a step stores what it has fetched. What the
counting itself takes is seen beside a ledger that knows no evicted key. One rank's own work has a section of its own.

    python -m benchmarks ledger
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.measure import Figures, Goal, Section
from benchmarks.ranks import run_ranks, write
from otel_train.ledger import StateLedger
from otel_train.ledger.hashing import keys_of, owners_of
from otel_train.ledger.shard import Shard

RANKS, KEYS, WIDTH = 2, 256, 512
HITS, EVICTS = "all hits", "with evictions"
SLOWER, COUNTING = {HITS: 1.2, EVICTS: 1.3}, 0.03
OURS, UNCOUNTED, BARE = "StateLedger", "StateLedger without evicted keys", "bare exchanges"
CAPACITY = {HITS: 1024, EVICTS: 1024}
STREAMS = {HITS: 1024, EVICTS: 4096}
"""Ids that the steps go through in turn: all of them fit the two ranks, or half of them."""
Step = Callable[[int], object]


class Uncounted(StateLedger):
    """A ledger without the ring of evicted keys: no false eviction is known; what it holds and evicts is the same."""

    def __init__(self, capacity: int) -> None:
        super().__init__((WIDTH,), capacity=capacity)
        self._interval.recently_evicted = 0
        self._shard = Shard(
            self._interval, (WIDTH,), dtype=self.dtype, device=self.device, max_idle_steps=self.max_idle_steps
        )


def ids(case: str, step: int, rank: int) -> torch.Tensor:
    """Return the stream ids of a rank's step: those that came longest ago, or never."""
    first = (step * RANKS + rank) * KEYS
    return torch.arange(first, first + KEYS) % STREAMS[case]


def ledger_step(ledger: StateLedger, case: str, states: torch.Tensor) -> Step:
    """Return a fetch and a store."""
    rank = dist.get_rank()

    def step(number: int) -> None:
        streams = ids(case, number, rank)
        ledger.fetch(streams)
        ledger.store(streams, states)

    return step


def bare_step(case: str, states: torch.Tensor) -> Step:
    """Return the exchanges of a fetch (counts, keys, states back) and of a store of the same keys (counts, states)."""
    rank = dist.get_rank()

    def exchange(rows: torch.Tensor, sends: list[int], receives: list[int]) -> torch.Tensor:
        out = rows.new_empty(sum(receives), *rows.shape[1:])
        dist.all_to_all_single(out, rows, receives, sends)
        return out

    def counts(sends: list[int]) -> list[int]:
        theirs = torch.empty(RANKS, dtype=torch.int64)
        dist.all_to_all_single(theirs, torch.tensor(sends))
        received: list[int] = theirs.tolist()
        return received

    def step(number: int) -> None:
        keys = keys_of(ids(case, number, rank))
        owners = owners_of(keys, RANKS)
        order = owners.argsort()
        sends = owners.bincount(minlength=RANKS).tolist()
        sorted_keys = keys[order]
        receives = counts(sends)
        asked = exchange(sorted_keys, sends, receives)
        exchange(states.new_empty(len(asked), WIDTH), receives, sends)
        receives = counts(sends)
        exchange(states[order], sends, receives)

    return step


def main(folder: str, rounds: str, steps: str) -> None:
    """Be one rank: let the contenders take turns, and write the nanoseconds of each step."""
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    states = torch.randn(KEYS, WIDTH)
    ledgers: dict[str, StateLedger] = {}
    contenders: dict[str, Step] = {}
    for case in (HITS, EVICTS):
        counted, uncounted = StateLedger((WIDTH,), capacity=CAPACITY[case]), Uncounted(CAPACITY[case])
        ledgers |= {f"{OURS}, {case}": counted}
        contenders |= {
            f"{OURS}, {case}": ledger_step(counted, case, states),
            f"{UNCOUNTED}, {case}": ledger_step(uncounted, case, states),
            f"{BARE}, {case}": bare_step(case, states),
        }
    times: dict[str, list[list[int]]] = {name: [] for name in contenders}
    done = 0
    counted_steps: dict[str, Any] = {}
    for number in range(int(rounds) + 1):
        for name, step in contenders.items():
            dist.barrier()
            taken = timed(step, done, int(steps))
            if number:  # the first round warms up
                times[name].append(taken)
        done += int(steps)
        for name, ledger in ledgers.items():
            counted_steps[name] = ledger.drain_step_metrics()
    write(folder, {"times": times, "drained": counted_steps})
    dist.destroy_process_group()


def timed(step: Step, first: int, steps: int) -> list[int]:
    """Return the nanoseconds of each step."""
    clock, times = time.perf_counter_ns, []
    for number in range(first, first + steps):
        begin = clock()
        step(number)
        times.append(clock() - begin)
    return times


def run(*, quick: bool) -> Section:
    """Measure on two ranks."""
    rounds, steps = (2, 12) if quick else (30, 24)
    seen = run_ranks("benchmarks.ledger", RANKS, rounds, steps)
    figures = {name: Figures([median(times) for times in taken]) for name, taken in seen[0]["times"].items()}
    goals = []
    notes = [
        (
            "What two ranks' steps have beyond the bare exchanges is mostly copies of the states: out of the slab, "
            "back into the caller's order, into the slab. The bare program drops what comes, unread; here it is read, "
            "after gloo's threads have written it on another core."
        ),
        (
            "Tried: a dict as the index, the order of use in tensors (ten times the work, before the native core); "
            "index_copy_ of float32 (three times as slow as of the same bytes as complex128); new memory for each "
            "exchange (kept: the last call's); a second exchange of the keys where a step stores what it has fetched "
            "(kept: one of six less, here and in the bare program)."
        ),
    ]
    for case in (HITS, EVICTS):
        ours, uncounted, bare = (figures[f"{name}, {case}"] for name in (OURS, UNCOUNTED, BARE))
        slower, counting = ours.ratio(bare)[0], ours.ratio(uncounted)[0] - 1
        goals += [
            Goal(f"at most {SLOWER[case]}x of the {BARE}, {case}", f"{slower:.2f}x", slower <= SLOWER[case]),
            Goal(f"counting at most {COUNTING:.0%} of it, {case}", f"{counting:.1%}", counting <= COUNTING),
        ]
        drained = seen[0]["drained"][f"{OURS}, {case}"]
        notes.append(
            f"{case.capitalize()}: rank 0's last {steps} steps had {drained['ledger/hits']:.0f} hits, "
            f"{drained['ledger/evictions']:.0f} evictions and {drained['ledger/false_evictions']:.0f} false ones."
        )
    return Section(
        number=5,
        title="The ledger's fetch and store",
        how=(
            f"{RANKS} gloo ranks under torchrun, {KEYS} keys and states of {WIDTH} float32 a step on "
            f"each, capacity {CAPACITY[HITS]} a rank. {STREAMS[HITS]} streams in turn are all hits, {STREAMS[EVICTS]} "
            "evict as many as they write, each a false eviction in the end. The bare program hashes and sorts the same "
            "keys, makes the same five all_to_all_single (counts, keys, states back; counts, states) and keeps nothing."
        ),
        unit="µs",
        figures=figures,
        ours=f"{OURS}, {HITS}",
        goals=goals,
        notes=notes,
    )


def median(times: list[int]) -> float:
    """Return the median in microseconds."""
    return sorted(times)[len(times) // 2] / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
