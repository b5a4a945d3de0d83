"""Measure what running telemetry takes from the training around it: steps of a millisecond of Python, with and without.

Everything is real: `otel_train.init` starts the sidecar, which exports to a receiver in a process of its own. Each
contender is a process, in which its steps and the same steps without it take turns; the processes take turns in blocks.
Then ranks that are bound to a core while a DataLoader's workers fill the others: the sidecar as it places itself, held
on the rank's core, and the baseline's. Then `otel-train top` on a terminal attached to the rings and, in turn, stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, IterableDataset

from benchmarks.builds import BASELINE, Contender, Process, baseline, running, training_core
from benchmarks.contender import NOTHING, WORK, calibrated, work
from benchmarks.fresh import sidecars_of
from benchmarks.measure import Goal, Section, quantile, spread
from benchmarks.receiver import running_receiver
from tests.support.waiting import wait_until

OURS = "otel_train: pick + telemetry.step, a loss; sidecar and receiver running"
BASE = f"the same at {BASELINE}"
SDK = "OTel SDK in the process, 15 gauges"
PLACED = "otel_train on a bound rank, the sidecar where it places itself"
HELD = "otel_train on a bound rank, the sidecar held on the rank's core"
BOUND_OFF = "a bound rank without telemetry"
BOUND_BASE = f"{BASELINE} on a bound rank"
TOP = "otel-train top attached to ours, over ours without"
SHARE, TAIL = 1.005, 1.01
POOLED = 10
"""Blocks that make a 99th percentile together: one is too short for it."""
SENT = 0.5
"""Seconds after which a sidecar has sent what its rank's block recorded."""
LOOKS = 1.0
"""Seconds of a block with top attached, and of one without: it looks once in each, when it goes on."""
ON_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Pair:
    """Steps of one contender with it and without it, nanoseconds by block."""

    without: list[list[int]]
    within: list[list[int]]

    def ratios(self) -> list[float]:
        """Return the ratio of the medians, block by block."""
        return [
            statistics.median(own) / statistics.median(off) for own, off in zip(self.within, self.without, strict=True)
        ]

    def tail(self) -> float:
        """Return the ratio of the 99th percentiles, the median over pools of blocks."""
        return statistics.median(own / off for own, off in zip(_p99s(self.within), _p99s(self.without), strict=True))

    def total(self) -> float:
        """Return the ratio of the mean steps: all of them, the longest too."""
        return _mean(self.within) / _mean(self.without)

    def row(self, name: str) -> list[str]:
        """Return its row of the table."""
        low, high = spread(self.ratios())
        medians = [statistics.median(map(statistics.median, side)) / 1000 for side in (self.without, self.within)]
        return [
            name,
            *(f"{median:,.0f}" for median in medians),
            f"{statistics.median(self.ratios()):.4f} ({low:.4f} to {high:.4f})",
            f"{self.tail():.3f}",
            f"{self.total():.4f}",
        ]


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, steps = (4, 30) if quick else (60, 60)
    core, words = training_core(), len(calibrated())
    with baseline() as root, running_receiver() as receiver:
        sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        free = {
            OURS: Contender(name="otel_train", environment=sent),
            BASE: Contender(name="otel_train", environment=sent, root=root),
            SDK: Contender(name="sdk"),
        }
        bound = {
            BOUND_OFF: Contender(name="nothing", core=core, bound_first=True),
            PLACED: Contender(name="otel_train", environment=sent, core=core, bound_first=True),
            HELD: Contender(name="otel_train", environment=sent, core=core, bound_first=True),
            BOUND_BASE: Contender(name="otel_train", environment=sent, root=root, core=core, bound_first=True),
        }
        with running(free) as processes:
            pairs = take_turns(processes, rounds, steps)
            pairs |= {TOP: watched(processes[OURS], 2 if quick else 12)}
        with running(bound) as processes, filled_cores(core):
            hold(processes[HELD], core)
            bound_pairs = compare_blocks(processes, 1 if quick else 12, words)
        wait_until(lambda: receiver.requests() > 1, what="the work of the sidecars")
    return section(pairs, bound_pairs, rounds, steps)


def section(pairs: Mapping[str, Pair], bound: Mapping[str, Pair], rounds: int, steps: int) -> Section:
    """Return the section of what was measured."""
    header = ["off (µs)", "with it (µs)", "median (5 % to 95 %)", "p99", "sum of all steps"]
    ours, base = pairs[OURS], pairs[BASE]
    share, before = (statistics.median(pair.ratios()) for pair in (ours, base))
    return Section(
        number=3,
        title="The step beside running telemetry",
        how=(
            f"A step is {WORK * 1e3:.0f} ms of pure Python, always the same work on the same words. Each row is a "
            f"process in which steps with and without take turns; {rounds} blocks of {steps} steps of each, the "
            "processes in turn: this machine's speed changes within seconds. Our sidecars export every step to an OTLP "
            "receiver in another process all the while. The SDK's reader exports every 60 s, its default, so that what "
            "is seen of it is the setting of gauges. The columns on the right are ratios, formed block by block, the "
            f"p99 of {POOLED} blocks together, the last one the mean of all steps over that of all steps without. The "
            "row of `otel-train top` is on a terminal, which is stopped and goes on in turn, "
            f"{LOOKS:.0f} s each. In the second table ranks are bound to one core from their start, as mpirun, numactl "
            "and torchrun's --numa-binding have it, and the workers of a DataLoader fill all the other cores with "
            "Python; the step does not wait for them. A sidecar there interrupts whatever step the rank is at: a block "
            f"of {LOOKS:.0f} s is compared with one of a process without telemetry, in the same round."
        ),
        unit="µs",
        goals=[
            Goal(
                f"<= {(SHARE - 1) * 100:.1f} % of the step",
                f"{(share - 1) * 100:+.2f} % ({BASELINE}: {(before - 1) * 100:+.2f} %)",
                share <= SHARE,
            ),
            Goal(f"p99 <= {TAIL}x", f"{ours.tail():.3f}x ({BASELINE}: {base.tail():.3f}x)", ours.tail() <= TAIL),
        ],
        tables=[
            [["", *header], *(pair.row(name) for name, pair in pairs.items())],
            [["ranks bound to a core", *header], *(pair.row(name) for name, pair in bound.items())],
        ],
        notes=[
            (
                "After a millisecond of other work a step's code runs cold, out of caches that hold the work's: it "
                "takes several times the hot path's time, and so do the peers'. Steps of 10 ms have a tenth of the "
                "share."
            ),
        ],
    )


def take_turns(processes: Mapping[str, Process], rounds: int, steps: int) -> dict[str, Pair]:
    """Time whole steps with each contender and without, a block of each process in turn; the first ones warm up."""
    pairs = {name: Pair([], []) for name in processes}
    order = list(processes)
    for number in range(rounds + 1):
        for name in order:
            process = processes[name]
            times = process.block("python", steps, (NOTHING, process.name), whole=True)
            if number:
                pairs[name].without.append(times[NOTHING])
                pairs[name].within.append(times[process.name])
        order.append(order.pop(0))
    return pairs


def compare_blocks(processes: Mapping[str, Process], rounds: int, words: int) -> dict[str, Pair]:
    """Time whole steps of each process, to be compared with those of the process without telemetry.

    A sidecar that interrupts the rank interrupts whatever step it is at, so that these can't share a process. The
    others' sidecars have sent what there was before a block begins.
    """
    blocks: dict[str, list[list[int]]] = {name: [] for name in processes}
    order = list(processes)
    for number in range(rounds + 1):
        for name in order:
            time.sleep(SENT)
            process = processes[name]
            (times,) = process.block("python", int(LOOKS / WORK), words=words, whole=True).values()
            if number:
                blocks[name].append(times)
        order.append(order.pop(0))
    return {name: Pair(blocks[BOUND_OFF], taken) for name, taken in blocks.items() if name != BOUND_OFF}


def _mean(blocks: Sequence[Sequence[int]]) -> float:
    return sum(map(sum, blocks)) / sum(map(len, blocks))


def _p99s(blocks: Sequence[Sequence[int]]) -> Iterator[float]:
    """Yield the 99th percentile of each so many blocks together."""
    for first in range(0, len(blocks), POOLED):
        yield quantile([time for block in blocks[first : first + POOLED] for time in block], 0.99)


def watched(process: Process, rounds: int) -> Pair:
    """Time steps while top looks at the rings, and while it does not."""
    pair = Pair([], [])
    with attached(process.rings) as pid:
        steps = max(10, int(LOOKS / (2 * WORK)))
        for number in range(rounds + 1):
            for looks in (True, False) if number % 2 else (False, True):
                os.kill(pid, signal.SIGCONT if looks else signal.SIGSTOP)
                times = process.block("python", steps, whole=True)[process.name]
                if number:
                    (pair.within if looks else pair.without).append(times)
    return pair


@contextlib.contextmanager
def attached(rings: Path) -> Iterator[int]:
    """Run `otel-train top` on a terminal of its own during the block, and give its pid."""
    command = [sys.executable, "-c", ON_A_TERMINAL, sys.executable, "-m", "otel_train", "top", str(rings)]
    terminal = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}
    )
    children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children")
    try:
        wait_until(lambda: bool(children.read_text().split()), what="top")
        pid = int(children.read_text().split()[0])
        time.sleep(LOOKS)
        yield pid
        os.kill(pid, signal.SIGCONT)
        if terminal.poll() is not None:
            raise RuntimeError(f"top ended with {terminal.returncode}")
    finally:
        terminal.kill()
        terminal.wait()


def hold(process: Process, core: int) -> None:
    """Hold a rank's sidecar on a core at the rank's own priority, as it was before it placed itself."""
    process.block("loop", 1)  # it starts with the first step
    wait_until(lambda: any(True for _ in sidecars_of(process.rings)), what="the sidecar")
    time.sleep(LOOKS)  # it places itself before anything else that it does
    for pid in sidecars_of(process.rings):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
            with contextlib.suppress(PermissionError):  # only root may raise it again
                os.setpriority(os.PRIO_PROCESS, int(thread.name), os.getpriority(os.PRIO_PROCESS, 0))


class Endless(IterableDataset[int]):
    """Dataset whose first item is never done, and keeps a worker busy."""

    def __iter__(self) -> Iterator[int]:
        """Work for ever."""
        words = calibrated()
        while True:
            work(words)
        yield 0


@contextlib.contextmanager
def filled_cores(core: int) -> Iterator[None]:
    """Fill all cores but this one with the workers of a DataLoader during the block."""
    others = os.sched_getaffinity(0) - {core}

    def leave_core(_worker: int) -> None:
        os.sched_setaffinity(0, others)

    if others:
        loader = iter(DataLoader(Endless(), num_workers=len(others), worker_init_fn=leave_core))
        yield
        del loader  # its workers are ended
    else:
        yield
